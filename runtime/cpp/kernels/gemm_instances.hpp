// The matrix products that are compiled once, with the embedded InfiniCore (its ops/gemm.cpp).
#pragma once

#include "gemm.hpp"

namespace qwen3::kernels {

#define QWEN3_GEMM_INSTANCE(X, W)                                                               \
  template void gemm<X, W>(const GemmShape&, Matrices<const X>, Matrices<const W>, Matrices<X>, \
                           float, float)

extern QWEN3_GEMM_INSTANCE(float, float);
extern QWEN3_GEMM_INSTANCE(Bf16, Bf16);
extern QWEN3_GEMM_INSTANCE(F16, F16);
extern QWEN3_GEMM_INSTANCE(float, Bf16);
extern QWEN3_GEMM_INSTANCE(float, F16);

}  // namespace qwen3::kernels
