// Operands for the C++ test programs, the same in every run.
#pragma once

#include <cstddef>
#include <random>
#include <vector>

#include "half.hpp"

// `count` normally distributed numbers, rounded to T.
template <typename T>
std::vector<T> random_values(std::size_t count, unsigned seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal;
  std::vector<T> values(count);
  for (T& value : values) value = qwen3::kernels::from_float<T>(normal(generator));
  return values;
}
