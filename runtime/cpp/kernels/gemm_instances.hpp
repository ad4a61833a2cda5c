// The matrix products that are compiled once, with the embedded InfiniCore (its ops/gemm.cpp).
#pragma once

#include "gemm.hpp"

namespace qwen3::kernels {

#define QWEN3_GEMM_INSTANCE(X, W, kMayRoundRows)                \
  template void gemm<X, W, StepFor<W, X, kMayRoundRows>::Type>( \
      const GemmShape&, Matrices<const X>, Matrices<const W>, Matrices<X>, float, float)

extern QWEN3_GEMM_INSTANCE(float, float, false);
extern QWEN3_GEMM_INSTANCE(Bf16, Bf16, false);
extern QWEN3_GEMM_INSTANCE(F16, F16, false);
extern QWEN3_GEMM_INSTANCE(float, Bf16, false);
extern QWEN3_GEMM_INSTANCE(float, F16, false);
#if defined(QWEN3_SIMD_AVX512_BF16)  // elsewhere the rows stay, and it is one of those above
extern QWEN3_GEMM_INSTANCE(float, Bf16, true);
#endif

}  // namespace qwen3::kernels
