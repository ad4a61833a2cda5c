// Matrix products against double precision, and to the last bit whatever rows share the call and
// however the operands lie; for every step, also those that this instruction set has no use for.

#include "gemm.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "check.hpp"
#include "random_values.hpp"

using namespace qwen3::kernels;

namespace {

template <typename T>
std::vector<T> converted(const std::vector<float>& floats) {
  std::vector<T> values;
  for (const float value : floats) values.push_back(from_float<T>(value));
  return values;
}

template <typename T>
bool same_bits(const std::vector<T>& one, const std::vector<T>& other) {
  return one.size() == other.size() &&
         std::memcmp(one.data(), other.data(), one.size() * sizeof(T)) == 0;
}

// What a step multiplies an element of the rows as.
template <typename Step>
double multiplied(typename Step::RowElement value) {
  if constexpr (std::is_same_v<Step, Bf16PairStep<float>>) {
    return to_float(from_float<Bf16>(value));
  } else {
    return to_float(value);
  }
}

template <typename Step>
void is_right(std::size_t m, std::size_t n, std::size_t k) {
  using T = typename Step::RowElement;
  using W = typename Step::Element;
  const auto a = random_values<T>(m * k, 3);
  const auto b = random_values<W>(k * n, 4);
  std::vector<T> c(m * n);
  gemm<T, W, Step>({1, m, n, k}, {a.data(), 0, static_cast<std::ptrdiff_t>(k), 1},
                   {b.data(), 0, static_cast<std::ptrdiff_t>(n), 1},
                   {c.data(), 0, static_cast<std::ptrdiff_t>(n), 1}, 1.0f, 0.0f);
  for (std::size_t i = 0; i < m; ++i) {
    for (std::size_t j = 0; j < n; ++j) {
      double exact = 0.0;
      double size = 0.0;
      for (std::size_t l = 0; l < k; ++l) {
        const double product = multiplied<Step>(a[i * k + l]) * to_float(b[l * n + j]);
        exact += product;
        size += std::abs(product);
      }
      const double rounding = sizeof(T) == 2 ? std::abs(exact) / 256 : 0.0;
      CHECK(std::abs(static_cast<double>(to_float(c[i * n + j])) - exact) <=
            rounding + size * 1e-6 + 1e-12);
    }
  }
}

// A matrix in every layout that is packed or read in a way of its own; `rows` run over k where they
// are a product's left operand, columns where they are its right one.
template <typename T>
class Layouts {
 public:
  Layouts(std::vector<T> values, std::size_t rows, std::size_t cols)
      : rows_(static_cast<std::ptrdiff_t>(rows)),
        cols_(static_cast<std::ptrdiff_t>(cols)),
        along_rows_(std::move(values)),
        along_cols_(along_rows_.size()),
        apart_(3 * along_rows_.size()) {
    for (std::size_t row = 0; row < rows; ++row) {
      for (std::size_t col = 0; col < cols; ++col) {
        const T value = along_rows_[row * cols + col];
        along_cols_[col * rows + row] = value;
        apart_[3 * (row * cols + col)] = value;
      }
    }
  }

  // [rows, cols]; of both kinds of neighbours, and of none.
  std::vector<Matrices<const T>> all() const {
    return {{along_rows_.data(), 0, cols_, 1},
            {along_cols_.data(), 0, 1, rows_},
            {apart_.data(), 0, 3 * cols_, 3}};
  }

 private:
  std::ptrdiff_t rows_;
  std::ptrdiff_t cols_;
  std::vector<T> along_rows_;
  std::vector<T> along_cols_;
  std::vector<T> apart_;
};

// A row's bits do not depend on how many rows there are, nor on how either operand lies.
template <typename Step>
void has_one_order(std::size_t most_rows, std::size_t k) {
  using T = typename Step::RowElement;
  using W = typename Step::Element;
  constexpr std::size_t kCols = 45;
  const Layouts<T> a(random_values<T>(most_rows * k, 5), most_rows, k);
  const Layouts<W> b(random_values<W>(k * kCols, 6), k, kCols);
  const auto product = [&](Matrices<const T> left, std::size_t row, std::size_t rows,
                           Matrices<const W> right) {
    std::vector<T> c(rows * kCols);
    left.data = left.at(0, row, 0);
    gemm<T, W, Step>({1, rows, kCols, k}, left, right, {c.data(), 0, kCols, 1}, 1.0f, 0.0f);
    return c;
  };
  std::vector<T> alone;
  for (std::size_t row = 0; row < most_rows; ++row) {
    const auto one = product(a.all()[0], row, 1, b.all()[1]);
    alone.insert(alone.end(), one.begin(), one.end());
  }
  for (const std::size_t rows : {std::size_t{1}, std::size_t{2}, std::size_t{5}, std::size_t{16},
                                 std::size_t{17}, most_rows}) {
    const auto end = alone.begin() + static_cast<std::ptrdiff_t>(rows * kCols);
    for (const auto& left : a.all()) {
      for (const auto& right : b.all()) {
        CHECK(same_bits(product(left, 0, rows, right), std::vector<T>(alone.begin(), end)));
      }
    }
  }
}

template <typename Step>
void products() {
  for (const std::size_t m : {1, 3, 17, 40}) is_right<Step>(m, 45, 601);
  // Several blocks of rows; several chunks and a part of a block.
  has_one_order<Step>(300, 2100);
  // From less than a block of k to a bit more, and about a chunk.
  for (const std::size_t k : {1, 2, 3, 7, 8, 9, 31, 32, 33, 63, 1023, 1025}) {
    is_right<Step>(2, 9, k);
    has_one_order<Step>(17, k);
  }
}

// Every result is to the bit that of rows which were rounded before, as floats or as bfloat16
// numbers; the latter's are rounded once more, as they are stored.
void rows_are_rounded_to_pairs() {
  constexpr std::size_t kCols = 45;
  for (const std::size_t m : {1, 3, 17, 40}) {
    for (const std::size_t k : {1, 33, 2100}) {
      std::vector<float> a = random_values<float>(m * k, 7);
      for (std::size_t i = 0; i < a.size(); i += 3) {  // exactly between two bfloat16 numbers
        a[i] = bits_float((float_bits(a[i]) & 0xffff0000u) | 0x8000u);
      }
      const auto narrow = converted<Bf16>(a);
      std::vector<float> rounded;
      for (const Bf16 value : narrow) rounded.push_back(to_float(value));
      const auto b = random_values<Bf16>(k * kCols, 8);
      const auto stride = static_cast<std::ptrdiff_t>(k);
      const auto product = [&](const auto& rows, auto step) {
        using T = std::decay_t<decltype(rows[0])>;
        std::vector<T> c(m * kCols);
        gemm<T, Bf16, decltype(step)>({1, m, kCols, k}, {rows.data(), 0, stride, 1},
                                      {b.data(), 0, 1, stride}, {c.data(), 0, kCols, 1}, 1.0f,
                                      0.0f);
        return c;
      };
      const std::vector<float> c = product(a, Bf16PairStep<float>());
      CHECK(same_bits(c, product(rounded, Bf16PairStep<float>())));
      CHECK(same_bits(converted<Bf16>(c), product(narrow, Bf16PairStep<Bf16>())));
    }
  }
}

// Rows of floats are rounded for those alone who say so, beside bfloat16, with AVX512_BF16.
static_assert(std::is_same_v<StepFor<Bf16, float>::Type, FloatStep<Bf16, float>>);
static_assert(std::is_same_v<StepFor<F16, float, true>::Type, FloatStep<F16, float>>);
static_assert(std::is_same_v<StepFor<float, float, true>::Type, FloatStep<float>>);
#if defined(QWEN3_SIMD_AVX512_BF16)
static_assert(std::is_same_v<StepFor<Bf16, float, true>::Type, Bf16PairStep<float>>);
#else
static_assert(std::is_same_v<StepFor<Bf16, float, true>::Type, FloatStep<Bf16, float>>);
#endif

float dot_pair(float high_a, float high_b, float low_a, float low_b, float c) {
  const auto pair = [](float high, float low) {
    const std::uint32_t upper = from_float<Bf16>(high).bits;
    return simd::U32{} + (upper << 16 | from_float<Bf16>(low).bits);
  };
  return simd::dot_pairs(pair(high_a, low_a), pair(high_b, low_b), simd::set(c))[0];
}

// What docs/native-lowering.md says of the instruction, and what stands in for it elsewhere.
void pairs_are_added_one_by_one() {
  const float large = 16777216.0f;  // 2^24: neighbours are 2 apart
  CHECK(dot_pair(1.0f, 1.0f, 2.0f, 1.0f, large) == large + 2.0f);
  CHECK(dot_pair(2.0f, 1.0f, 1.0f, 1.0f, large) == large + 4.0f);
  CHECK(dot_pair(std::ldexp(1.0f, -60), std::ldexp(1.0f, -60), 0.0f, 0.0f, 0.0f) ==
        std::ldexp(1.0f, -120));
  const float infinity = std::numeric_limits<float>::infinity();
  CHECK(dot_pair(infinity, 1.0f, 1.0f, 1.0f, 0.0f) == infinity);
  CHECK(std::isnan(dot_pair(infinity, 0.0f, 1.0f, 1.0f, 0.0f)));
}

#if defined(QWEN3_SIMD_AVX512_BF16)
void subnormals_of_pairs_are_flushed() {
  const float subnormal = std::ldexp(1.0f, -130);
  CHECK(dot_pair(subnormal, std::ldexp(1.0f, 100), 0.0f, 0.0f, 0.0f) == 0.0f);
  CHECK(dot_pair(std::ldexp(1.0f, -70), std::ldexp(1.0f, -60), 0.0f, 0.0f, 0.0f) == 0.0f);
}
#endif

}  // namespace

int main() {
  products<FloatStep<float>>();
  products<FloatStep<Bf16>>();
  products<FloatStep<F16>>();
  products<FloatStep<Bf16, float>>();
  products<FloatStep<F16, float>>();
  products<Bf16PairStep<Bf16>>();
  products<Bf16PairStep<float>>();
  rows_are_rounded_to_pairs();
  pairs_are_added_one_by_one();
#if defined(QWEN3_SIMD_AVX512_BF16)
  subnormals_of_pairs_are_flushed();
#endif
  std::printf("%s\n", simd::kInstructionSet);
}
