#include "qwen3_api_table.hpp"

#ifdef QWEN3_OP_ADD_RMS_NORM

#include "dispatch.hpp"
#include "infiniop/ops/add_rms_norm.h"
#include "norm_rows.hpp"
#include "operator.hpp"
#include "rms_norm.hpp"

using namespace qwen3::infinicore;
namespace kernels = qwen3::kernels;

namespace {

struct AddRmsNormDescriptor : InfiniopDescriptor {
  infiniDtype_t dtype;
  infiniDtype_t weight_dtype;
  std::size_t size;
  float epsilon;
  kernels::StridedLoop<4> rows;  // y, residual_out, a, b
};

}  // namespace

infiniStatus_t infiniopCreateAddRMSNormDescriptor(
    infiniopHandle_t handle, infiniopAddRMSNormDescriptor_t* desc_ptr, infiniopTensorDescriptor_t y,
    infiniopTensorDescriptor_t residual_out, infiniopTensorDescriptor_t a,
    infiniopTensorDescriptor_t b, infiniopTensorDescriptor_t weight, float epsilon) {
  return guarded([&]() -> infiniStatus_t {
    Operands operands(handle, kAddRMSNormRules, {y, residual_out, a, b, weight});
    if (residual_out == nullptr) {
      return operands.refuse(INFINI_STATUS_BAD_PARAM, "NULL descriptor for residual_out");
    }
    QWEN3_TRY(operands.check());
    for (std::size_t i = 1; i < 4; ++i) {
      QWEN3_TRY(operands.check_same_shape(0, i));
    }
    if (weight->shape[0] != y->shape.back()) {
      return operands.refuse(INFINI_STATUS_BAD_TENSOR_SHAPE, "rows of %zu, weight of %zu",
                             y->shape.back(), weight->shape[0]);
    }
    QWEN3_TRY(operands.check_strides());
    auto descriptor = std::make_unique<AddRmsNormDescriptor>();
    descriptor->dtype = y->dtype;
    descriptor->weight_dtype = weight->dtype;
    descriptor->size = y->shape.back();
    descriptor->epsilon = epsilon;
    descriptor->rows = loop_over_rows<4>({y, residual_out, a, b});
    return finish_create(operands, operands.in_order(), std::move(descriptor), desc_ptr);
  });
}

infiniStatus_t infiniopGetAddRMSNormWorkspaceSize(infiniopAddRMSNormDescriptor_t desc,
                                                  size_t* size) {
  return workspace_size_of(kAddRMSNormRules, desc, size);
}

infiniStatus_t infiniopAddRMSNorm(infiniopAddRMSNormDescriptor_t desc, void* workspace,
                                  size_t workspace_size, void* y, void* residual_out, const void* a,
                                  const void* b, const void* weight, void* stream) {
  return run<AddRmsNormDescriptor, 5>(
      kAddRMSNormRules, desc, {workspace, workspace_size}, stream, {y, residual_out, a, b, weight},
      [](const AddRmsNormDescriptor& own, const std::array<void*, 5>& data) {
        with_norm_types(own.dtype, own.weight_dtype, [&](auto tag, auto weight_tag) {
          using T = TypeOf<decltype(tag)>;
          using W = TypeOf<decltype(weight_tag)>;
          for_each_row(own.rows, own.size, [&](const auto& offset) {
            kernels::add_rms_norm_row(static_cast<T*>(data[0]) + offset[0],
                                      static_cast<T*>(data[1]) + offset[1],
                                      static_cast<const T*>(data[2]) + offset[2],
                                      static_cast<const T*>(data[3]) + offset[3],
                                      static_cast<const W*>(data[4]), own.size, own.epsilon);
          });
        });
        return kSuccess;
      });
}

infiniStatus_t infiniopDestroyAddRMSNormDescriptor(infiniopAddRMSNormDescriptor_t desc) {
  return destroy(kAddRMSNormRules, desc);
}

#endif  // QWEN3_OP_ADD_RMS_NORM
