#include "infiniop/ops/gemm.h"

#include "dispatch.hpp"
#include "gemm_instances.hpp"
#include "operator.hpp"

using namespace qwen3::infinicore;
namespace kernels = qwen3::kernels;

namespace {

// A rank 2 or 3 operand as a batch of matrices.
struct Layout {
  std::size_t batch;
  std::size_t rows;
  std::size_t cols;
  std::ptrdiff_t batch_stride;
  std::ptrdiff_t row_stride;
  std::ptrdiff_t col_stride;

  explicit Layout(const Tensor& tensor) {
    const std::size_t r = tensor.rank();
    batch = r == 3 ? tensor.shape[0] : 1;
    batch_stride = batch > 1 ? tensor.strides[0] : 0;
    rows = tensor.shape[r - 2];
    cols = tensor.shape[r - 1];
    row_stride = tensor.strides[r - 2];
    col_stride = tensor.strides[r - 1];
  }

  template <typename T>
  kernels::Matrices<T> of(void* data) const {
    return {static_cast<T*>(data), batch_stride, row_stride, col_stride};
  }
};

struct GemmDescriptor : InfiniopDescriptor {
  GemmDescriptor(const Tensor& c_desc, const Tensor& a_desc, const Tensor& b_desc)
      : dtype(c_desc.dtype), c(c_desc), a(a_desc), b(b_desc) {}

  infiniDtype_t dtype;
  Layout c;
  Layout a;
  Layout b;
};

}  // namespace

namespace qwen3::kernels {

QWEN3_GEMM_INSTANCE(float, float, false);
QWEN3_GEMM_INSTANCE(Bf16, Bf16, false);
QWEN3_GEMM_INSTANCE(F16, F16, false);
QWEN3_GEMM_INSTANCE(float, Bf16, false);
QWEN3_GEMM_INSTANCE(float, F16, false);
#if defined(QWEN3_SIMD_AVX512_BF16)
QWEN3_GEMM_INSTANCE(float, Bf16, true);
#endif

}  // namespace qwen3::kernels

infiniStatus_t infiniopCreateGemmDescriptor(infiniopHandle_t handle,
                                            infiniopGemmDescriptor_t* desc_ptr,
                                            infiniopTensorDescriptor_t c,
                                            infiniopTensorDescriptor_t a,
                                            infiniopTensorDescriptor_t b) {
  return guarded([&]() -> infiniStatus_t {
    Operands operands(handle, kGemmRules, {c, a, b});
    QWEN3_TRY(operands.check());
    QWEN3_TRY(operands.check_strides());
    auto descriptor = std::make_unique<GemmDescriptor>(*c, *a, *b);
    const auto& [out, left, right] = std::tie(descriptor->c, descriptor->a, descriptor->b);
    if (out.rows != left.rows || out.cols != right.cols || left.cols != right.rows) {
      return operands.refuse(INFINI_STATUS_BAD_TENSOR_SHAPE, "[%zu, %zu] = [%zu, %zu] @ [%zu, %zu]",
                             out.rows, out.cols, left.rows, left.cols, right.rows, right.cols);
    }
    if ((left.batch != 1 && left.batch != out.batch) ||
        (right.batch != 1 && right.batch != out.batch)) {
      return operands.refuse(INFINI_STATUS_BAD_TENSOR_SHAPE, "batches %zu = %zu @ %zu", out.batch,
                             left.batch, right.batch);
    }
    return finish_create(operands, {0, 1, 2}, std::move(descriptor), desc_ptr);
  });
}

infiniStatus_t infiniopGetGemmWorkspaceSize(infiniopGemmDescriptor_t desc, size_t* size) {
  return workspace_size_of(kGemmRules, desc, size);
}

infiniStatus_t infiniopGemm(infiniopGemmDescriptor_t desc, void* workspace, size_t workspace_size,
                            void* c, const void* a, const void* b, float alpha, float beta,
                            void* stream) {
  return run<GemmDescriptor, 3>(
      kGemmRules, desc, {workspace, workspace_size}, stream, {c, a, b},
      [&](const GemmDescriptor& own, const std::array<void*, 3>& data) {
        const kernels::GemmShape shape{own.c.batch, own.c.rows, own.c.cols, own.a.cols};
        with_float_type(own.dtype, [&](auto tag) {
          using T = TypeOf<decltype(tag)>;
          kernels::gemm<T>(shape, own.a.of<const T>(data[1]), own.b.of<const T>(data[2]),
                           own.c.of<T>(data[0]), alpha, beta);
        });
        return kSuccess;
      });
}

infiniStatus_t infiniopDestroyGemmDescriptor(infiniopGemmDescriptor_t desc) {
  return destroy(kGemmRules, desc);
}
