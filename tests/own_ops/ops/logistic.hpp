#pragma once

#include <cmath>

namespace qwen3::native::own {

inline float logistic(float x) { return 1.0f / (1.0f + std::exp(-x)); }

}  // namespace qwen3::native::own
