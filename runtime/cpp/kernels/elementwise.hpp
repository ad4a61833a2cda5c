// Element-wise functions over strided tensors.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <tuple>
#include <type_traits>

#include "parallel.hpp"
#include "strided.hpp"
#include "vector_math.hpp"

namespace qwen3::kernels {

// The functions: on vectors of floats and on double; those without exp also on integers.
struct Add {
  template <typename V>
  V operator()(V a, V b) const {
    return a + b;
  }
};

struct Sub {
  template <typename V>
  V operator()(V a, V b) const {
    return a - b;
  }
};

struct Mul {
  template <typename V>
  V operator()(V a, V b) const {
    return a * b;
  }
};

// up * silu(gate)
struct SwiGlu {
  simd::F32 operator()(simd::F32 up, simd::F32 gate) const { return up * simd::silu(gate); }
  double operator()(double up, double gate) const { return up * (gate / (1.0 + std::exp(-gate))); }
};

struct Relu {
  simd::F32 operator()(simd::F32 x) const { return simd::max(simd::F32{}, x); }
  double operator()(double x) const { return 0.0 > x ? 0.0 : x; }
};

struct Silu {
  simd::F32 operator()(simd::F32 x) const { return simd::silu(x); }
  double operator()(double x) const { return x / (1.0 + std::exp(-x)); }
};

struct Sigmoid {
  simd::F32 operator()(simd::F32 x) const { return simd::sigmoid(x); }
  double operator()(double x) const { return 1.0 / (1.0 + std::exp(-x)); }
};

struct Scale {
  double factor;
  simd::F32 operator()(simd::F32 x) const { return x * simd::set(static_cast<float>(factor)); }
  double operator()(double x) const { return x * factor; }
};

namespace elementwise_detail {

// Elements worth a thread of their own.
inline constexpr std::size_t kThreadElements = 16384;

template <typename T>
constexpr bool kIsVector =
    std::is_same_v<T, float> || std::is_same_v<T, Bf16> || std::is_same_v<T, F16>;

// `count` <= kLanes elements, `stride` apart; one element of the types that have no vectors.
template <typename T>
std::enable_if_t<!kIsVector<T>, T> load(const T* source, std::ptrdiff_t, std::size_t) {
  return *source;
}

template <typename T>
std::enable_if_t<!kIsVector<T>> store(T* target, std::ptrdiff_t, T value, std::size_t) {
  *target = value;
}

template <typename T>
std::enable_if_t<kIsVector<T>, simd::F32> load(const T* source, std::ptrdiff_t stride,
                                               std::size_t count) {
  if (stride == 1 && count == simd::kLanes) {
    return simd::load(source);
  }
  float lanes[simd::kLanes] = {};
  for (std::size_t i = 0; i < count; ++i) {
    lanes[i] = to_float(source[static_cast<std::ptrdiff_t>(i) * stride]);
  }
  return simd::load(lanes);
}

template <typename T>
std::enable_if_t<kIsVector<T>> store(T* target, std::ptrdiff_t stride, simd::F32 value,
                                     std::size_t count) {
  if (stride == 1 && count == simd::kLanes) {
    simd::store(target, value);
    return;
  }
  T lanes[simd::kLanes];
  simd::store(lanes, value);
  for (std::size_t i = 0; i < count; ++i) {
    target[static_cast<std::ptrdiff_t>(i) * stride] = lanes[i];
  }
}

// out[i] = function(in[i]...) for `count` elements.
template <typename T, typename Function, std::size_t Inputs>
void apply_run(const Function& function, std::size_t count,
               const std::array<std::ptrdiff_t, 1 + Inputs>& strides, T* out,
               const std::array<const T*, Inputs>& in) {
  using Value = std::conditional_t<kIsVector<T>, simd::F32, T>;
  constexpr std::size_t kStep = kIsVector<T> ? simd::kLanes : 1;
  for (std::size_t i = 0; i < count; i += kStep) {
    const auto at = static_cast<std::ptrdiff_t>(i);
    const std::size_t present = std::min(kStep, count - i);
    std::array<Value, Inputs> values;
    for (std::size_t t = 0; t < Inputs; ++t) {
      values[t] = load(in[t] + at * strides[t + 1], strides[t + 1], present);
    }
    store(out + at * strides[0], strides[0], std::apply(function, values), present);
  }
}

}  // namespace elementwise_detail

// out = function(in...) element by element; an input may be the output.
//
// Args:
//   loop: Strides of out and of each input, in this order.
template <typename T, typename Function, typename... In>
void elementwise(const StridedLoop<1 + sizeof...(In)>& loop, const Function& function, T* out,
                 const In*... in) {
  const auto strides = loop.run_strides();
  const std::size_t length = loop.run_length();
  parallel_for(
      loop.size(), elementwise_detail::kThreadElements, [&](std::size_t begin, std::size_t end) {
        while (begin < end) {  // the part of one run that lies in [begin, end)
          const std::size_t count = std::min(length - begin % length, end - begin);
          const auto offsets = loop.element(begin);
          std::size_t t = 0;
          const auto next = [&](const T* source) { return source + offsets[++t]; };
          const std::array<const T*, sizeof...(In)> sources{next(in)...};
          elementwise_detail::apply_run(function, count, strides, out + offsets[0], sources);
          begin += count;
        }
      });
}

}  // namespace qwen3::kernels
