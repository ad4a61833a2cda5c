#include "qwen3_api_table.hpp"

#ifdef QWEN3_OP_SILU_AND_MUL

#include "dispatch.hpp"
#include "elementwise.hpp"
#include "infiniop/ops/silu_and_mul.h"
#include "operator.hpp"

using namespace qwen3::infinicore;
namespace kernels = qwen3::kernels;

namespace {

struct SiluAndMulDescriptor : InfiniopDescriptor {
  infiniDtype_t dtype;
  std::size_t size;              // of an output row
  kernels::StridedLoop<3> loop;  // output, up, gate: rows of size, 2 size, 2 size
};

}  // namespace

infiniStatus_t infiniopCreateSiluAndMulDescriptor(infiniopHandle_t handle,
                                                  infiniopSiluAndMulDescriptor_t* desc_ptr,
                                                  infiniopTensorDescriptor_t output,
                                                  infiniopTensorDescriptor_t input) {
  return guarded([&]() -> infiniStatus_t {
    Operands operands(handle, kSiluAndMulRules, {output, input});
    QWEN3_TRY(operands.check());
    if (output->rank() != input->rank()) {
      return operands.refuse(INFINI_STATUS_BAD_PARAM, "ranks %zu and %zu", output->rank(),
                             input->rank());
    }
    std::vector<std::size_t> expected = output->shape;
    expected.back() *= 2;
    if (input->shape != expected) {
      return operands.refuse(INFINI_STATUS_BAD_TENSOR_SHAPE,
                             "input is not output with rows twice as long");
    }
    QWEN3_TRY(operands.check_strides());
    auto descriptor = std::make_unique<SiluAndMulDescriptor>();
    const std::size_t size = output->shape.back();
    const auto step = static_cast<std::ptrdiff_t>(size);
    const std::size_t rows = size > 0 ? output->size() / size : 0;
    descriptor->dtype = output->dtype;
    descriptor->size = size;
    descriptor->loop = {{rows, size}, {{{step, 1}, {2 * step, 1}, {2 * step, 1}}}};
    return finish_create(operands, {0, 1}, std::move(descriptor), desc_ptr);
  });
}

infiniStatus_t infiniopGetSiluAndMulWorkspaceSize(infiniopSiluAndMulDescriptor_t desc,
                                                  size_t* size) {
  return workspace_size_of(kSiluAndMulRules, desc, size);
}

infiniStatus_t infiniopSiluAndMul(infiniopSiluAndMulDescriptor_t desc, void* workspace,
                                  size_t workspace_size, void* output, const void* input,
                                  void* stream) {
  return run<SiluAndMulDescriptor, 2>(
      kSiluAndMulRules, desc, {workspace, workspace_size}, stream, {output, input},
      [](const SiluAndMulDescriptor& own, const std::array<void*, 2>& data) {
        with_float_type(own.dtype, [&](auto tag) {
          using T = TypeOf<decltype(tag)>;
          const auto* gate = static_cast<const T*>(data[1]);
          kernels::elementwise(own.loop, kernels::SwiGlu{}, static_cast<T*>(data[0]),
                               gate + own.size, gate);
        });
        return kSuccess;
      });
}

infiniStatus_t infiniopDestroySiluAndMulDescriptor(infiniopSiluAndMulDescriptor_t desc) {
  return destroy(kSiluAndMulRules, desc);
}

#endif  // QWEN3_OP_SILU_AND_MUL
