// The matrix products that are compiled once, with the embedded InfiniCore (its ops/gemm.cpp).
#pragma once

#include "gemm_problem.hpp"

namespace qwen3::kernels {

// Defined in gemm.hpp, which an engine's kernels need not read.
template <typename T>
void gemm(const GemmShape& shape, Matrices<const T> a, Matrices<const T> b, Matrices<T> c,
          float alpha, float beta);

#define QWEN3_GEMM_INSTANCE(T)                                                               \
  template void gemm<T>(const GemmShape&, Matrices<const T>, Matrices<const T>, Matrices<T>, \
                        float, float)

extern QWEN3_GEMM_INSTANCE(float);
extern QWEN3_GEMM_INSTANCE(Bf16);
extern QWEN3_GEMM_INSTANCE(F16);

}  // namespace qwen3::kernels
