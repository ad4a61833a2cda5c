// The matrix products that are compiled once, with the embedded InfiniCore (its ops/gemm.cpp).
#pragma once

#include "gemm.hpp"

namespace qwen3::kernels {

#define QWEN3_GEMM_INSTANCE(T)                                                               \
  template void gemm<T>(const GemmShape&, Matrices<const T>, Matrices<const T>, Matrices<T>, \
                        float, float)

extern QWEN3_GEMM_INSTANCE(float);
extern QWEN3_GEMM_INSTANCE(Bf16);
extern QWEN3_GEMM_INSTANCE(F16);

}  // namespace qwen3::kernels
