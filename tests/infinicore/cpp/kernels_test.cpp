// The kernels' building blocks: exp, conversions, lane sums, transposition, the thread pool.

#include <array>
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <random>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "check.hpp"
#include "gemm.hpp"
#include "half.hpp"
#include "parallel.hpp"
#include "simd.hpp"
#include "vector_math.hpp"

using namespace qwen3::kernels;

namespace {

constexpr int kLaneCount = simd::kLanes;

double ulps(float got, double exact) {
  const auto nearest = static_cast<float>(exact);
  const double unit = std::ldexp(1.0, std::max(std::ilogb(nearest), -126) - 23);
  return std::abs(static_cast<double>(got) - exact) / unit;
}

void exp_is_within_two_ulps() {
  double worst = 0.0;
  for (double x = -103.9; x < 88.7; x += 0.00071) {
    float lanes[kLaneCount];
    for (int i = 0; i < kLaneCount; ++i) {
      lanes[i] = static_cast<float>(x + i * 0.00009);
    }
    const simd::F32 got = simd::exp(simd::load(lanes));
    for (int i = 0; i < kLaneCount; ++i) {
      worst = std::max(worst, ulps(got[i], std::exp(static_cast<double>(lanes[i]))));
    }
  }
  CHECK(worst <= 2.0);
  const float infinity = std::numeric_limits<float>::infinity();
  CHECK(simd::exp(simd::set(-infinity))[0] == 0.0f);
  CHECK(simd::exp(simd::set(infinity))[0] == infinity);
  CHECK(simd::exp(simd::set(0.0f))[0] == 1.0f);
  CHECK(std::isnan(simd::exp(simd::set(std::nanf("")))[0]));
}

// Vector and scalar conversions agree for every 16-bit pattern and for many floats.
template <typename T>
void conversions_agree() {
  std::mt19937 generator(1);
  for (std::uint32_t start = 0; start < 65536; start += kLaneCount) {
    T values[kLaneCount];
    for (int i = 0; i < kLaneCount; ++i) {
      values[i].bits = static_cast<std::uint16_t>(start + static_cast<std::uint32_t>(i));
    }
    const simd::F32 wide = simd::load(values);
    for (int i = 0; i < kLaneCount; ++i) {
      const float one = to_float(values[i]);
      CHECK(wide[i] == one || (std::isnan(wide[i]) && std::isnan(one)));
    }
    float floats[kLaneCount];
    for (float& value : floats) {
      value = bits_float(generator() & (generator() % 2 == 0 ? 0xffffffffu : 0xffffe000u));
    }
    simd::store(values, simd::load(floats));
    for (int i = 0; i < kLaneCount; ++i) {
      const T one = from_float<T>(floats[i]);
      CHECK(values[i].bits == one.bits || std::isnan(floats[i]));
      CHECK(!std::isnan(floats[i]) || std::isnan(to_float(one)));
    }
  }
}

// Rounding is to the nearest of the two neighbours, ties to the even one.
template <typename T>
void rounding_is_to_nearest_even() {
  for (std::uint32_t pattern = 0; pattern < 0x7bffu; ++pattern) {
    const float low = to_float(T{static_cast<std::uint16_t>(pattern)});
    const float high = to_float(T{static_cast<std::uint16_t>(pattern + 1)});
    if (std::isinf(high)) {
      continue;
    }
    const float middle = low + (high - low) / 2;
    const auto even = static_cast<std::uint16_t>(pattern % 2 == 0 ? pattern : pattern + 1);
    CHECK(from_float<T>(middle).bits == even);
    CHECK(from_float<T>(-middle).bits == (even | 0x8000u));
    CHECK(from_float<T>(std::nextafter(middle, high)).bits == pattern + 1);
    CHECK(from_float<T>(std::nextafter(middle, low)).bits == pattern);
  }
}

void sums_follow_one_order() {
  constexpr int kCount = 24;
  std::mt19937 generator(2);
  std::normal_distribution<float> normal;
  simd::F32 values[kCount];
  for (simd::F32& value : values) {
    for (int i = 0; i < kLaneCount; ++i) {
      value[i] = normal(generator) * 1e3f;
    }
  }
  float together[kCount];
  simd::sums<kCount>(values, together);
  for (int i = 0; i < kCount; ++i) {
    CHECK(float_bits(together[i]) == float_bits(simd::sum(values[i])));
  }
}

void transposition_swaps_lanes() {
  simd::F32 tile[kLaneCount];
  for (int i = 0; i < kLaneCount; ++i) {
    for (int j = 0; j < kLaneCount; ++j) {
      tile[i][j] = static_cast<float>(100 * i + j);
    }
  }
  simd::transpose(tile);
  for (int i = 0; i < kLaneCount; ++i) {
    for (int j = 0; j < kLaneCount; ++j) {
      CHECK(tile[i][j] == static_cast<float>(100 * j + i));
    }
  }
}

// Every index is visited once, whatever the numbers of threads and indices.
void parallel_for_covers_the_range() {
  for (const int threads : {1, 2, 3, 7}) {
    ThreadPool::instance().set_num_threads(threads);
    for (const std::size_t count : {0, 1, 2, 19, 1000}) {
      std::vector<std::atomic<int>> visits(count);
      parallel_for(count, 1, [&](std::size_t begin, std::size_t end) {
        for (std::size_t i = begin; i < end; ++i) {
          visits[i].fetch_add(1, std::memory_order_relaxed);
        }
      });
      for (const auto& visit : visits) {
        CHECK(visit.load() == 1);
      }
    }
  }
}

void small_ranges_stay_on_the_caller() {
  ThreadPool::instance().set_num_threads(4);
  parallel_for(99, 50, [](std::size_t begin, std::size_t end) { CHECK(end - begin == 99); });
  std::atomic<int> parts{0};
  parallel_for(100, 50, [&](std::size_t, std::size_t) { ++parts; });
  CHECK(parts == 2);
}

void exceptions_reach_the_caller() {
  ThreadPool::instance().set_num_threads(3);
  for (int round = 0; round < 20; ++round) {
    std::string caught;
    try {
      parallel_for(30, 1, [](std::size_t begin, std::size_t) {
        if (begin > 0) {
          throw std::runtime_error("a part failed");
        }
      });
    } catch (const std::runtime_error& error) {
      caught = error.what();
    }
    CHECK(caught == "a part failed");
  }
}

void nested_and_concurrent_calls_work() {
  ThreadPool::instance().set_num_threads(3);
  std::atomic<std::size_t> sum{0};
  const auto work = [&] {
    for (int round = 0; round < 200; ++round) {
      parallel_for(64, 1, [&](std::size_t begin, std::size_t end) {
        parallel_for(end - begin, 1,
                     [&](std::size_t inner, std::size_t stop) { sum += stop - inner; });
      });
    }
  };
  std::vector<std::thread> callers;
  for (int i = 0; i < 4; ++i) {
    callers.emplace_back(work);
  }
  for (std::thread& caller : callers) {
    caller.join();
  }
  CHECK(sum == 4u * 200u * 64u);
}

void idle_workers_sleep() {
  ThreadPool::instance().set_num_threads(4);
  parallel_for(100, 1, [](std::size_t, std::size_t) {});
  std::this_thread::sleep_for(std::chrono::milliseconds(50));  // past the time they spin
  const std::clock_t before = std::clock();                    // processor time of all threads
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  const double used = static_cast<double>(std::clock() - before) / CLOCKS_PER_SEC;
  CHECK(used < 0.1);
}

template <typename T, typename W = T>
void products_are_right(std::size_t m, std::size_t n, std::size_t k) {
  std::mt19937 generator(3);
  std::normal_distribution<float> normal;
  std::vector<T> a(m * k);
  std::vector<W> b(k * n);
  std::vector<T> c(m * n);
  for (T& value : a) value = from_float<T>(normal(generator));
  for (W& value : b) value = from_float<W>(normal(generator));
  gemm<T, W>({1, m, n, k}, {a.data(), 0, static_cast<std::ptrdiff_t>(k), 1},
             {b.data(), 0, static_cast<std::ptrdiff_t>(n), 1},
             {c.data(), 0, static_cast<std::ptrdiff_t>(n), 1}, 1.0f, 0.0f);
  for (std::size_t i = 0; i < m; ++i) {
    for (std::size_t j = 0; j < n; ++j) {
      double exact = 0.0;
      double size = 0.0;
      for (std::size_t l = 0; l < k; ++l) {
        const double product = static_cast<double>(to_float(a[i * k + l])) *
                               static_cast<double>(to_float(b[l * n + j]));
        exact += product;
        size += std::abs(product);
      }
      const double rounding = sizeof(T) == 2 ? std::abs(exact) / 256 : 0.0;
      CHECK(std::abs(static_cast<double>(to_float(c[i * n + j])) - exact) <=
            rounding + size * 1e-6 + 1e-12);
    }
  }
}

// A row's bits do not depend on how many rows there are, nor on how the columns lie.
template <typename T, typename W = T>
void products_have_one_order() {
  constexpr std::size_t kRows = 300;  // several blocks of rows
  constexpr std::size_t kCols = 45;
  constexpr std::size_t kLength = 2100;  // several chunks and a part of a block
  std::mt19937 generator(4);
  std::normal_distribution<float> normal;
  std::vector<T> a(kRows * kLength);
  std::vector<W> adjacent(kLength * kCols);
  std::vector<W> contiguous(kLength * kCols);
  for (T& value : a) value = from_float<T>(normal(generator));
  for (std::size_t k = 0; k < kLength; ++k) {
    for (std::size_t col = 0; col < kCols; ++col) {
      adjacent[k * kCols + col] = from_float<W>(normal(generator));
      contiguous[col * kLength + k] = adjacent[k * kCols + col];
    }
  }
  const auto product = [&](std::size_t first, std::size_t rows, Matrices<const W> b) {
    std::vector<T> c(rows * kCols);
    gemm<T, W>({1, rows, kCols, kLength}, {&a[first * kLength], 0, kLength, 1}, b,
               {c.data(), 0, kCols, 1}, 1.0f, 0.0f);
    return c;
  };
  const Matrices<const W> in_place{contiguous.data(), 0, 1, kLength};
  std::vector<T> alone;
  for (std::size_t row = 0; row < kRows; ++row) {
    const std::vector<T> one = product(row, 1, in_place);
    alone.insert(alone.end(), one.begin(), one.end());
  }
  for (const std::size_t rows : {1, 2, 5, 16, 17, 300}) {
    for (const Matrices<const W>& b : {in_place, {adjacent.data(), 0, kCols, 1}}) {
      const std::vector<T> together = product(0, rows, b);
      CHECK(std::memcmp(together.data(), alone.data(), together.size() * sizeof(T)) == 0);
    }
  }
}

#if defined(QWEN3_SIMD_AVX512_BF16)
float dot_pair(float high_a, float high_b, float low_a, float low_b, float c) {
  const auto pair = [](float high, float low) {
    const std::uint32_t upper = from_float<Bf16>(high).bits;
    return simd::U32{} + (upper << 16 | from_float<Bf16>(low).bits);
  };
  return simd::dot_pairs(pair(high_a, low_a), pair(high_b, low_b), simd::set(c))[0];
}

// What docs/native-lowering.md says of the instruction.
void pairs_are_added_one_by_one_and_flushed() {
  const float large = 16777216.0f;  // 2^24: neighbours are 2 apart
  CHECK(dot_pair(1.0f, 1.0f, 2.0f, 1.0f, large) == large + 2.0f);
  CHECK(dot_pair(2.0f, 1.0f, 1.0f, 1.0f, large) == large + 4.0f);
  const float subnormal = std::ldexp(1.0f, -130);
  CHECK(dot_pair(subnormal, std::ldexp(1.0f, 100), 0.0f, 0.0f, 0.0f) == 0.0f);
  CHECK(dot_pair(std::ldexp(1.0f, -70), std::ldexp(1.0f, -60), 0.0f, 0.0f, 0.0f) == 0.0f);
  CHECK(dot_pair(std::ldexp(1.0f, -60), std::ldexp(1.0f, -60), 0.0f, 0.0f, 0.0f) ==
        std::ldexp(1.0f, -120));
  const float infinity = std::numeric_limits<float>::infinity();
  CHECK(dot_pair(infinity, 1.0f, 1.0f, 1.0f, 0.0f) == infinity);
  CHECK(std::isnan(dot_pair(infinity, 0.0f, 1.0f, 1.0f, 0.0f)));
}
#endif

}  // namespace

int main() {
  exp_is_within_two_ulps();
  conversions_agree<Bf16>();
  conversions_agree<F16>();
  rounding_is_to_nearest_even<Bf16>();
  rounding_is_to_nearest_even<F16>();
  sums_follow_one_order();
  transposition_swaps_lanes();
  parallel_for_covers_the_range();
  small_ranges_stay_on_the_caller();
  exceptions_reach_the_caller();
  nested_and_concurrent_calls_work();
  idle_workers_sleep();
  for (const std::size_t m : {1, 3, 17, 40}) {
    products_are_right<float>(m, 45, 601);
    products_are_right<Bf16>(m, 45, 601);
    products_are_right<F16>(m, 45, 601);
    products_are_right<float, Bf16>(m, 45, 601);
    products_are_right<float, F16>(m, 45, 601);
  }
  products_have_one_order<float>();
  products_have_one_order<Bf16>();
  products_have_one_order<F16>();
  products_have_one_order<float, Bf16>();
  products_have_one_order<float, F16>();
#if defined(QWEN3_SIMD_AVX512_BF16)
  pairs_are_added_one_by_one_and_flushed();
#endif
  std::printf("%s\n", simd::kInstructionSet);
}
