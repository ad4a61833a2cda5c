#pragma once

#include <cmath>

#include "engine/native/op_kernels.hpp"
#include "logistic.hpp"

namespace qwen3::native::own {

template <class T, size_t kColumns, size_t kGroups>
struct GatedMix {
  static void run(const Tensor& mixed, const Tensor& strengths, const Tensor& x, const Tensor& gate,
                  const Tensor& gain, const Tensor& floor, float sharpness, int64_t shift,
                  bool inverted) {
    using kernels::from_float;
    using kernels::to_float;
    const float* gains = floats(gain);
    const T* floors = reinterpret_cast<const T*>(floor.data);
    const auto columns = static_cast<int64_t>(kColumns);
    for_each_row(mixed.shape[0], kColumns, [&](size_t row) {
      const T* in = row_of<const T>(x, row);
      for (size_t j = 0; j < kColumns; ++j) {
        const size_t group = j / (kColumns / kGroups);
        float strength = logistic(sharpness * to_float(row_of<const T>(gate, row)[group]));
        if (inverted) strength = 1.0f - strength;
        const int64_t from = ((static_cast<int64_t>(j) - shift) % columns + columns) % columns;
        const float other = to_float(in[from]) * gains[j] * (1.0f - strength);
        row_of<T>(mixed, row)[j] = from_float<T>(to_float(in[j]) * strength + other);
        row_of<T>(strengths, row)[group] = from_float<T>(strength * to_float(floors[group]));
      }
    });
  }
};

}  // namespace qwen3::native::own
