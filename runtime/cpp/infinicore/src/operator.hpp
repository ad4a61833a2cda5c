// What all operators share: checked creation from tensor descriptors and checked runs.
#pragma once

#include <array>
#include <cstddef>
#include <memory>
#include <tuple>
#include <utility>
#include <vector>

#include "devices.hpp"
#include "infiniop/handle.h"
#include "infiniop/operator_descriptor.h"
#include "qwen3_api_table.hpp"
#include "status.hpp"
#include "tensor.hpp"

// The names are the C ABI's.
struct InfiniopHandle {
  qwen3::infinicore::DeviceId device;
};

struct InfiniopDescriptor {
  qwen3::infinicore::DeviceId device;
  const qwen3::infinicore::OperatorRules* rules = nullptr;
  // Bytes that each data pointer must reach, in the order of the run function.
  std::vector<qwen3::infinicore::Extent> extents;

  virtual ~InfiniopDescriptor() = default;
};

namespace qwen3::infinicore {

// Workspace that operators ask for on emulated devices, so that an engine which passes none, or
// host memory, is found out. The CPU needs none.
inline constexpr std::size_t kEmulatedWorkspace = 256;

// The operands of a create function, in the order of its rules.
class Operands {
 public:
  Operands(infiniopHandle_t handle, const OperatorRules& rules,
           std::vector<infiniopTensorDescriptor_t> tensors)
      : handle_(handle), rules_(rules), tensors_(std::move(tensors)) {}

  // NULLs, device, element types and ranks, in this order; `optional` names the only tensor that
  // may be NULL. The element types are compared here, shapes by the operator.
  infiniStatus_t check(std::size_t optional = kNone);
  // Strides, after the operator's own checks.
  infiniStatus_t check_strides() const;

  const OperatorRules& rules() const { return rules_; }
  const DeviceId& device() const { return handle_->device; }
  const Tensor& operator[](std::size_t index) const { return *tensors_[index]; }
  bool has(std::size_t index) const { return tensors_[index] != nullptr; }
  std::size_t size() const { return tensors_.size(); }
  // 0, 1, ...: the run order of most operators.
  std::vector<std::size_t> in_order() const;
  // Bytes that tensor `index` covers under its stride rule; empty when it is absent.
  Extent extent(std::size_t index) const;

  [[gnu::format(printf, 3, 4)]] infiniStatus_t refuse(infiniStatus_t status, const char* format,
                                                      ...) const;
  // BAD_TENSOR_SHAPE unless both tensors have one shape.
  infiniStatus_t check_same_shape(std::size_t first, std::size_t second) const;

  static constexpr std::size_t kNone = static_cast<std::size_t>(-1);

 private:
  infiniStatus_t check_dtypes() const;
  infiniStatus_t check_ranks() const;

  infiniopHandle_t handle_;
  const OperatorRules& rules_;
  std::vector<infiniopTensorDescriptor_t> tensors_;
  const DeviceRule* device_rule_ = nullptr;
};

// Finishes creation: fills in device, rules and extents and hands the descriptor out.
//
// Args:
//   run_order: Which operand each data pointer of the run function belongs to.
infiniStatus_t finish_create(const Operands& operands, const std::vector<std::size_t>& run_order,
                             std::unique_ptr<InfiniopDescriptor> descriptor,
                             InfiniopDescriptor** out);

infiniStatus_t workspace_size_of(const OperatorRules& rules, const InfiniopDescriptor* descriptor,
                                 std::size_t* size);

infiniStatus_t destroy(const OperatorRules& rules, InfiniopDescriptor* descriptor);

struct Workspace {
  void* data;
  std::size_t size;
};

// Checks a run and makes usable addresses of its data pointers (in place, in run order).
infiniStatus_t prepare_run(const OperatorRules& rules, const InfiniopDescriptor* descriptor,
                           const Workspace& workspace, const void* stream, void** data,
                           std::size_t count);

// The body of a run function: checks, then kernel(descriptor, addresses).
template <typename Descriptor, std::size_t Count, typename Kernel>
infiniStatus_t run(const OperatorRules& rules, InfiniopDescriptor* descriptor,
                   const Workspace& workspace, const void* stream,
                   std::array<const void*, Count> data, const Kernel& kernel) {
  return guarded([&]() -> infiniStatus_t {
    std::array<void*, Count> addresses;
    for (std::size_t i = 0; i < Count; ++i) {
      addresses[i] = const_cast<void*>(data[i]);
    }
    QWEN3_TRY(prepare_run(rules, descriptor, workspace, stream, addresses.data(), Count));
    return kernel(static_cast<const Descriptor&>(*descriptor), addresses);
  });
}

}  // namespace qwen3::infinicore
