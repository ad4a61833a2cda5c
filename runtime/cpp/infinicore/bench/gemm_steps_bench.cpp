// Speed of products with bfloat16 matrices by step: widened to floats, and as this instruction set
// does it; for rows of bfloat16, and for rows of floats that may be rounded.
//
// Absolute figures drift with the machine and with what else runs, so both take turns and the ratio
// of their best times is printed; `taskset -c 1` measures one thread, in processor time, which
// other processes disturb less. Weights are [N, K] and read in place, as engines do.
//
//   c++ -std=c++17 -O3 -march=native -ffp-contract=off -Iruntime/cpp/kernels -pthread
//       runtime/cpp/infinicore/bench/gemm_steps_bench.cpp -o bench

#include <time.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

#include "gemm.hpp"

using namespace qwen3::kernels;

namespace {

template <typename T>
std::vector<T> operand(std::size_t count) {
  std::mt19937 generator(1);
  std::uniform_real_distribution<float> uniform(-1.0f, 1.0f);
  std::vector<T> values(count);
  for (T& value : values) value = from_float<T>(uniform(generator));
  return values;
}

// Processor time where one thread works, which other processes lengthen less; else the clock's.
double now() {
  timespec time;
  const bool alone = ThreadPool::instance().num_threads() == 1;
  clock_gettime(alone ? CLOCK_PROCESS_CPUTIME_ID : CLOCK_MONOTONIC, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

template <typename Step, typename X>
double seconds(const GemmShape& shape, const X* a, const Bf16* w, X* c) {
  const auto k = static_cast<std::ptrdiff_t>(shape.k);
  const double start = now();
  gemm<X, Bf16, Step>(shape, {a, 0, k, 1}, {w, 0, 1, k},
                      {c, 0, static_cast<std::ptrdiff_t>(shape.n), 1}, 1.0f, 0.0f);
  return now() - start;
}

// Takes turns with all of `w`, one matrix after the other, so that weights come from memory where
// they do not fit the caches.
template <typename X>
void measure(const char* rows, const GemmShape& shape, const std::vector<Bf16>& w,
             std::size_t copies) {
  using Clock = std::chrono::steady_clock;
  using Widened = FloatStep<Bf16, X>;
  using Own = typename StepFor<Bf16, X, true>::Type;
  const auto a = operand<X>(shape.m * shape.k);
  std::vector<X> c(shape.m * shape.n);
  double widened = 1e9;
  double own = 1e9;
  std::size_t copy = 0;
  const auto next = [&] { return w.data() + copy++ % copies * shape.n * shape.k; };
  const auto end = Clock::now() + std::chrono::milliseconds(1500);
  do {
    widened = std::min(widened, seconds<Widened>(shape, a.data(), next(), c.data()));
    own = std::min(own, seconds<Own>(shape, a.data(), next(), c.data()));
  } while (Clock::now() < end);
  const double operations = 2.0 * static_cast<double>(shape.m * shape.n * shape.k);
  const double bytes = static_cast<double>(shape.n * shape.k * sizeof(Bf16));
  std::printf(
      "M=%-4zu %s rows, widened %8.1f GFLOP/s, %s %8.1f GFLOP/s = %6.2f GB/s of weights, "
      "ratio %5.2f\n",
      shape.m, rows, operations / widened * 1e-9, simd::kInstructionSet, operations / own * 1e-9,
      bytes / own * 1e-9, widened / own);
  std::fflush(stdout);
}

}  // namespace

// Arguments: N K copies, by default 6144 2048 1; 6 copies of that do not fit a 32 MB cache.
int main(int argc, char** argv) {
  const std::size_t n = argc > 2 ? std::strtoul(argv[1], nullptr, 10) : 6144;
  const std::size_t k = argc > 2 ? std::strtoul(argv[2], nullptr, 10) : 2048;
  const std::size_t copies = argc > 3 ? std::strtoul(argv[3], nullptr, 10) : 1;
  const auto w = operand<Bf16>(copies * n * k);
  for (const std::size_t m : {1, 8, 16, 64, 256}) {
    measure<Bf16>("bfloat16", {1, m, n, k}, w, copies);
    measure<float>("float32", {1, m, n, k}, w, copies);
  }
}
