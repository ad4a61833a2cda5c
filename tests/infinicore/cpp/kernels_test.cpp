// The kernels' building blocks: exp, conversions, lane sums, transposition, the thread pool.

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
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

template <int kCount>
void lanes_are_folded_in_one_order() {
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
  simd::largests<kCount>(values, together);
  for (int i = 0; i < kCount; ++i) {
    float largest = values[i][0];
    for (int lane = 1; lane < kLaneCount; ++lane) largest = std::max(largest, values[i][lane]);
    CHECK(together[i] == largest && simd::largest(values[i]) == largest);
  }
}

void lanes_are_set_to_any_value() {
  for (const float value : {0.0f, -0.0f, 1.5f, -INFINITY}) {
    for (int lane = 0; lane < kLaneCount; ++lane) {
      CHECK(float_bits(simd::set(value)[lane]) == float_bits(value));
    }
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

// Every piece is visited once, whatever the numbers of threads and groups.
void parallel_pieces_covers_all() {
  for (const int threads : {1, 2, 7}) {
    ThreadPool::instance().set_num_threads(threads);
    for (const std::size_t groups : {0, 1, 5, 40}) {
      const auto pieces_of = [](std::size_t group) {
        return Pieces{group % 7, group % 3 == 0 ? 1000 : group + 1};
      };
      std::vector<std::array<std::atomic<int>, 7>> visits(groups);
      parallel_pieces(groups, pieces_of, 100,
                      [&](std::size_t group, std::size_t i) { ++visits[group][i]; });
      for (std::size_t group = 0; group < groups; ++group) {
        for (std::size_t i = 0; i < 7; ++i) CHECK(visits[group][i] == (i < group % 7 ? 1 : 0));
      }
    }
  }
}

// No part of the work exceeds its share by more than the piece it ends with.
void pieces_are_shared_by_cost() {
  const std::vector<Pieces> groups = {{30, 2}, {3, 400}, {0, 9}, {24, 5}, {5, 0}, {1, 90}};
  const auto pieces_of = [&](std::size_t group) { return groups[group]; };
  std::size_t total = 0;
  for (const Pieces& pieces : groups) total += pieces.total();
  constexpr std::size_t kParts = 8;
  std::size_t visited = 0;
  for (std::size_t part = 0; part < kParts; ++part) {
    std::size_t cost = 0;
    std::size_t last = 0;
    visit_pieces(groups.size(), pieces_of, total * part / kParts, total * (part + 1) / kParts,
                 [&](std::size_t group, std::size_t) { cost += last = groups[group].cost; });
    CHECK(cost <= total / kParts + 1 + last);
    visited += cost;
  }
  CHECK(visited == total);
}

// Equal numbers of pieces for each thread would leave both long ones, which come last, to the same.
void long_pieces_run_beside_each_other() {
  ThreadPool::instance().set_num_threads(2);
  std::atomic<int> met{0};
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  parallel_pieces(
      2, [](std::size_t group) { return group == 0 ? Pieces{24, 10} : Pieces{2, 4000}; }, 10,
      [&](std::size_t group, std::size_t) {
        if (group == 0) return;
        ++met;
        while (met < 2 && std::chrono::steady_clock::now() < end) std::this_thread::yield();
        CHECK(met == 2);
      });
  CHECK(met == 2);
}

// While one piece is stuck, all but those of its own part are done by the others.
void a_stuck_piece_holds_up_few() {
  ThreadPool::instance().set_num_threads(2);
  std::atomic<int> done{0};
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  parallel_pieces(
      1, [](std::size_t) { return Pieces{16, 100}; }, 100,
      [&](std::size_t, std::size_t i) {
        while (i == 0 && done < 14 && std::chrono::steady_clock::now() < end) {
          std::this_thread::yield();
        }
        if (i == 0) CHECK(done >= 14);
        ++done;
      });
  CHECK(done == 16);
}

void cheap_pieces_stay_on_the_caller() {
  ThreadPool::instance().set_num_threads(4);
  const std::thread::id caller = std::this_thread::get_id();
  parallel_pieces(
      3, [](std::size_t) { return Pieces{5, 10}; }, 76,
      [&](std::size_t, std::size_t) {
        std::this_thread::sleep_for(std::chrono::milliseconds(1));  // others would be here by then
        CHECK(std::this_thread::get_id() == caller);
      });
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

}  // namespace

int main() {
  exp_is_within_two_ulps();
  conversions_agree<Bf16>();
  conversions_agree<F16>();
  rounding_is_to_nearest_even<Bf16>();
  rounding_is_to_nearest_even<F16>();
  lanes_are_folded_in_one_order<24>();
  lanes_are_folded_in_one_order<7>();
  lanes_are_folded_in_one_order<3>();
  lanes_are_folded_in_one_order<1>();
  lanes_are_set_to_any_value();
  transposition_swaps_lanes();
  parallel_for_covers_the_range();
  parallel_pieces_covers_all();
  pieces_are_shared_by_cost();
  long_pieces_run_beside_each_other();
  a_stuck_piece_holds_up_few();
  cheap_pieces_stay_on_the_caller();
  small_ranges_stay_on_the_caller();
  exceptions_reach_the_caller();
  nested_and_concurrent_calls_work();
  idle_workers_sleep();
  std::printf("%s\n", simd::kInstructionSet);
}
