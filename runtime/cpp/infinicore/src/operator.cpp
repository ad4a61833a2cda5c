#include "operator.hpp"

#include <cstdarg>
#include <cstdio>
#include <numeric>

namespace qwen3::infinicore {

namespace {

const DeviceRule* find_device(const OperatorRules& rules, infiniDevice_t type) {
  for (const DeviceRule& rule : rules.devices) {
    if (rule.device == type) {
      return &rule;
    }
  }
  return nullptr;
}

bool obeys(const Tensor& tensor, StrideRule rule) {
  const std::size_t rank = tensor.rank();
  switch (rule) {
    case StrideRule::kAny:
      return true;
    case StrideRule::kDense:  // the CPU ignores these strides, as the library does
      return true;
    case StrideRule::kLastOne:
      return rank == 0 || tensor.strides[rank - 1] == 1;
    case StrideRule::kContiguous:
      return tensor.is_contiguous();
    case StrideRule::kMatrix:
      return tensor.strides[rank - 1] == 1 || tensor.strides[rank - 2] == 1;
    case StrideRule::kUnique:
      return !tensor.repeats();
    case StrideRule::kHeadRows:
      return tensor.strides[rank - 1] == 1 &&
             (tensor.shape[rank - 2] == 1 ||
              tensor.strides[rank - 2] == static_cast<std::ptrdiff_t>(tensor.shape[rank - 1]));
  }
  return false;
}

}  // namespace

infiniStatus_t Operands::refuse(infiniStatus_t status, const char* format, ...) const {
  char text[200];
  std::va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  return fail(status, "%s: %s", rules_.name, text);
}

infiniStatus_t Operands::check(std::size_t optional) {
  if (handle_ == nullptr) {
    return refuse(INFINI_STATUS_NULL_POINTER, "NULL handle");
  }
  device_rule_ = find_device(rules_, handle_->device.type);
  if (device_rule_ == nullptr) {  // silent: asking is how a caller learns what there is
    return INFINI_STATUS_DEVICE_TYPE_NOT_SUPPORTED;
  }
  for (std::size_t i = 0; i < tensors_.size(); ++i) {
    if (tensors_[i] == nullptr && i != optional) {
      return refuse(INFINI_STATUS_NULL_POINTER, "NULL descriptor for %s",
                    device_rule_->tensors[i].name);
    }
  }
  QWEN3_TRY(check_dtypes());
  return check_ranks();
}

infiniStatus_t Operands::check_dtypes() const {
  for (const DtypeAlternative& alternative : device_rule_->dtypes) {
    infiniDtype_t of_group[kMaxDtypeGroups] = {};
    bool fits = true;
    for (std::size_t i = 0; i < tensors_.size(); ++i) {
      if (tensors_[i] == nullptr) {
        continue;
      }
      const std::uint8_t group = device_rule_->tensors[i].group;
      const infiniDtype_t dtype = tensors_[i]->dtype;
      const auto number = static_cast<unsigned>(dtype);
      fits = fits && number < 32 && ((alternative.groups[group] >> number) & 1u) != 0 &&
             (of_group[group] == INFINI_DTYPE_INVALID || of_group[group] == dtype);
      of_group[group] = dtype;
    }
    if (fits) {
      return kSuccess;
    }
  }
  return refuse(INFINI_STATUS_BAD_TENSOR_DTYPE, "these element types are not supported together");
}

infiniStatus_t Operands::check_ranks() const {
  for (std::size_t i = 0; i < tensors_.size(); ++i) {
    if (tensors_[i] == nullptr) {
      continue;
    }
    const TensorRule& rule = device_rule_->tensors[i];
    const std::size_t rank = tensors_[i]->rank();
    if (rank >= 16 || ((rule.ranks >> rank) & 1u) == 0) {
      return refuse(INFINI_STATUS_BAD_TENSOR_SHAPE, "%s has rank %zu", rule.name, rank);
    }
  }
  return kSuccess;
}

infiniStatus_t Operands::check_strides() const {
  for (std::size_t i = 0; i < tensors_.size(); ++i) {
    const TensorRule& rule = device_rule_->tensors[i];
    if (tensors_[i] != nullptr && !obeys(*tensors_[i], rule.strides)) {
      return refuse(INFINI_STATUS_BAD_TENSOR_STRIDES, "strides of %s", rule.name);
    }
  }
  return kSuccess;
}

infiniStatus_t Operands::check_same_shape(std::size_t first, std::size_t second) const {
  if (tensors_[first]->shape != tensors_[second]->shape) {
    return refuse(INFINI_STATUS_BAD_TENSOR_SHAPE, "%s and %s differ in shape",
                  device_rule_->tensors[first].name, device_rule_->tensors[second].name);
  }
  return kSuccess;
}

Extent Operands::extent(std::size_t index) const {
  if (tensors_[index] == nullptr) {
    return {};
  }
  const bool dense = device_rule_->tensors[index].strides == StrideRule::kDense;
  return dense ? dense_extent_of(*tensors_[index]) : extent_of(*tensors_[index]);
}

std::vector<std::size_t> Operands::in_order() const {
  std::vector<std::size_t> order(tensors_.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  return order;
}

infiniStatus_t finish_create(const Operands& operands, const std::vector<std::size_t>& run_order,
                             std::unique_ptr<InfiniopDescriptor> descriptor,
                             InfiniopDescriptor** out) {
  if (out == nullptr) {
    return operands.refuse(INFINI_STATUS_NULL_POINTER, "NULL descriptor pointer");
  }
  descriptor->device = operands.device();
  descriptor->rules = &operands.rules();
  for (const std::size_t index : run_order) {
    descriptor->extents.push_back(operands.extent(index));
  }
  *out = descriptor.release();
  return kSuccess;
}

infiniStatus_t workspace_size_of(const OperatorRules& rules, const InfiniopDescriptor* descriptor,
                                 std::size_t* size) {
  if (descriptor == nullptr || size == nullptr) {
    return fail(INFINI_STATUS_NULL_POINTER, "%s: NULL argument", rules.name);
  }
  *size = descriptor->device.type == INFINI_DEVICE_CPU ? 0 : kEmulatedWorkspace;
  return kSuccess;
}

infiniStatus_t destroy(const OperatorRules& rules, InfiniopDescriptor* descriptor) {
  if (descriptor != nullptr && descriptor->rules != &rules) {
    return fail(INFINI_STATUS_BAD_PARAM, "%s: descriptor of another operator", rules.name);
  }
  delete descriptor;
  return kSuccess;
}

infiniStatus_t prepare_run(const OperatorRules& rules, const InfiniopDescriptor* descriptor,
                           const Workspace& workspace, const void* stream, void** data,
                           std::size_t count) {
  if (descriptor == nullptr) {
    return fail(INFINI_STATUS_NULL_POINTER, "%s: NULL descriptor", rules.name);
  }
  if (descriptor->rules != &rules) {
    return fail(INFINI_STATUS_BAD_PARAM, "%s: descriptor of another operator", rules.name);
  }
  const DeviceId& device = descriptor->device;
  if (device.type != INFINI_DEVICE_CPU) {
    if (!(current_device() == device)) {
      return fail(INFINI_STATUS_BAD_PARAM, "%s: this thread's device is another one", rules.name);
    }
    if (!is_stream_of(device, stream)) {
      return fail(INFINI_STATUS_BAD_PARAM, "%s: not a stream of this device", rules.name);
    }
    if (rules.has_workspace) {
      if (workspace.size < kEmulatedWorkspace) {
        return fail(INFINI_STATUS_INSUFFICIENT_WORKSPACE, "%s: workspace of %zu bytes", rules.name,
                    workspace.size);
      }
      void* unused = nullptr;
      const Extent whole{0, static_cast<std::ptrdiff_t>(workspace.size)};
      QWEN3_TRY(resolve(device, workspace.data, whole, "workspace", &unused));
    }
  }
  for (std::size_t i = 0; i < count; ++i) {
    QWEN3_TRY(resolve(device, data[i], descriptor->extents[i], rules.name, &data[i]));
  }
  return kSuccess;
}

}  // namespace qwen3::infinicore

using namespace qwen3::infinicore;

infiniStatus_t infiniopCreateHandle(infiniopHandle_t* handle_ptr) {
  return guarded([&] {
    if (handle_ptr == nullptr) {
      return fail(INFINI_STATUS_NULL_POINTER, "handle: NULL argument");
    }
    const DeviceId device = current_device();
    if (device.index >= device_count(device.type)) {
      return INFINI_STATUS_DEVICE_TYPE_NOT_SUPPORTED;
    }
    *handle_ptr = new InfiniopHandle{device};
    return kSuccess;
  });
}

infiniStatus_t infiniopDestroyHandle(infiniopHandle_t handle) {
  delete handle;
  return kSuccess;
}

infiniStatus_t infiniopGetDescriptorDeviceType(const InfiniopDescriptor* desc_ptr,
                                               infiniDevice_t* device_type) {
  if (desc_ptr == nullptr || device_type == nullptr) {
    return fail(INFINI_STATUS_NULL_POINTER, "descriptor: NULL argument");
  }
  *device_type = desc_ptr->device.type;
  return kSuccess;
}

infiniStatus_t infiniopGetDescriptorDeviceId(const InfiniopDescriptor* desc_ptr, int* device_id) {
  if (desc_ptr == nullptr || device_id == nullptr) {
    return fail(INFINI_STATUS_NULL_POINTER, "descriptor: NULL argument");
  }
  *device_id = desc_ptr->device.index;
  return kSuccess;
}
