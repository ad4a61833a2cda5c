#pragma once

#include "engine/native/op_kernels.hpp"

namespace qwen3::native::own {

struct HardSwishOfElements {
  kernels::simd::F32 operator()(kernels::simd::F32 x) const {
    for (int lane = 0; lane < kernels::simd::kLanes; ++lane) {
      x[lane] *= std::min(std::max(x[lane] + 3.0f, 0.0f), 6.0f) / 6.0f;
    }
    return x;
  }
};

template <class T, size_t kColumns>
struct HardSwish {
  static void run(const Tensor& out, const Tensor& x) {
    Unary<T, kColumns, HardSwishOfElements>::run(out, x);
  }
};

}  // namespace qwen3::native::own
