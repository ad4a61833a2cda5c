// Kernels of the native lowering: paged attention against double precision, and to the last bit
// whatever the batch, the chunks and the blocks; norm and rotation of heads; layer norm; mixtures
// of experts.

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>
#include <vector>

#include "check.hpp"
#include "layer_norm.hpp"
#include "native/experts.hpp"
#include "native/head.hpp"
#include "native/paged_attention.hpp"
#include "random_values.hpp"

using namespace qwen3::kernels;

namespace {

template <typename T, typename C, std::size_t kQueryHeads, std::size_t kHeads, std::size_t kHeadDim>
struct Problem {
  using Attention = PagedAttention<T, C, kQueryHeads, kHeads, kHeadDim>;
  static constexpr std::size_t kRow = kQueryHeads * kHeadDim;
  static constexpr std::size_t kKeyRow = kHeads * kHeadDim;

  std::size_t length;
  AttentionOptions options;
  std::vector<T> q = random_values<T>(length * kRow, 1);
  std::vector<C> k = random_values<C>(length * kKeyRow, 2);
  std::vector<C> v = random_values<C>(length * kKeyRow, 3);

  std::size_t num_blocks() const { return (length + kCacheBlock - 1) / kCacheBlock; }

  // A cache in which this sequence lies in `blocks`; everything else holds NaN.
  struct Cached {
    std::vector<C> keys;
    std::vector<C> values;
  };
  Cached cached(const std::vector<std::int32_t>& blocks) const {
    const auto most = static_cast<std::size_t>(*std::max_element(blocks.begin(), blocks.end()));
    const C nan = from_float<C>(std::nanf(""));
    Cached cache{std::vector<C>((most + 1) * kCacheBlock * kKeyRow, nan), {}};
    cache.values = cache.keys;
    for (std::size_t position = 0; position < length; ++position) {
      for (std::size_t head = 0; head < kHeads; ++head) {
        const auto block = static_cast<std::size_t>(blocks[position / kCacheBlock]);
        const std::size_t source = position * kKeyRow + head * kHeadDim;
        typename Attention::Cache{cache.keys.data(), cache.values.data()}.write(
            block, head, position % kCacheBlock, &k[source], &v[source]);
      }
    }
    return cache;
  }

  // Rows [start, start + count), all of one call.
  std::vector<T> attend(Cached& cache, const std::vector<std::int32_t>& blocks, std::size_t start,
                        std::size_t count) const {
    std::vector<T> out(count * kRow);
    const SequenceRows sequence{blocks.data(), 0, count, start};
    Attention::run({out.data(), kRow}, {q.data() + start * kRow, kRow},
                   {cache.keys.data(), cache.values.data()}, &sequence, 1, options);
    return out;
  }

  double expected(std::size_t row, std::size_t head, std::size_t column) const {
    const std::size_t kv = head / (kQueryHeads / kHeads);
    const std::size_t first =
        options.window > 0 && row + 1 > options.window ? row + 1 - options.window : 0;
    std::vector<double> scores;
    for (std::size_t key = first; key <= row; ++key) {
      double score = 0.0;
      for (std::size_t d = 0; d < kHeadDim; ++d) {
        score += static_cast<double>(to_float(q[row * kRow + head * kHeadDim + d])) *
                 to_float(k[key * kKeyRow + kv * kHeadDim + d]);
      }
      score *= options.scale;
      scores.push_back(options.softcap > 0 ? options.softcap * std::tanh(score / options.softcap)
                                           : score);
    }
    const double top = *std::max_element(scores.begin(), scores.end());
    double total = 0.0, sum = 0.0;
    for (std::size_t i = 0; i < scores.size(); ++i) {
      const double weight = std::exp(scores[i] - top);
      total += weight;
      sum += weight * to_float(v[(first + i) * kKeyRow + kv * kHeadDim + column]);
    }
    return sum / total;
  }
};

template <typename T>
bool same_bits(const T* a, const T* b, std::size_t count) {
  return std::memcmp(a, b, count * sizeof(T)) == 0;
}

template <typename T, typename C, std::size_t kQueryHeads, std::size_t kHeads, std::size_t kHeadDim>
void attention(std::size_t length, AttentionOptions options, double tolerance) {
  const Problem<T, C, kQueryHeads, kHeads, kHeadDim> problem{length, options};
  constexpr std::size_t kRow = kQueryHeads * kHeadDim;
  std::vector<std::int32_t> forth(problem.num_blocks()), back(forth.size());
  for (std::size_t i = 0; i < forth.size(); ++i) {
    forth[i] = static_cast<std::int32_t>(i);
    back[i] = static_cast<std::int32_t>(2 * (forth.size() - i));
  }
  auto cache = problem.cached(forth);
  const std::vector<T> whole = problem.attend(cache, forth, 0, length);
  double worst = 0.0;
  for (std::size_t row = 0; row < length; ++row) {
    for (std::size_t i = 0; i < kRow; ++i) {
      const double exact = problem.expected(row, i / kHeadDim, i % kHeadDim);
      worst = std::max(worst, std::abs(to_float(whole[row * kRow + i]) - exact));
    }
  }
  CHECK(worst <= tolerance);
  auto elsewhere = problem.cached(back);
  for (std::size_t chunk : {std::size_t{1}, std::size_t{7}, std::size_t{33}}) {
    for (std::size_t start = 0; start < length; start += chunk) {
      const std::size_t count = std::min(chunk, length - start);
      const std::vector<T> part = problem.attend(elsewhere, back, start, count);
      CHECK(same_bits(part.data(), whole.data() + start * kRow, part.size()));
    }
  }
}

void attention_of_many_shapes() {
  attention<float, float, 4, 2, 14>(75, {0.3f, 0, 0.0f}, 2e-6);
  attention<float, float, 4, 2, 14>(75, {0.3f, 8, 0.0f}, 2e-6);
  attention<float, float, 4, 4, 16>(33, {0.25f, 1, 0.0f}, 2e-6);
  attention<float, float, 7, 1, 20>(64, {0.2f, 33, 1.5f}, 4e-6);
  attention<Bf16, Bf16, 6, 2, 64>(70, {0.125f, 0, 0.0f}, 2e-2);
  attention<F16, F16, 2, 1, 33>(40, {0.2f, 5, 0.0f}, 2e-3);
  attention<float, float, 40, 1, 8>(35, {0.3f, 0, 0.0f}, 2e-6);
  attention<float, Bf16, 4, 2, 14>(75, {0.3f, 8, 0.0f}, 2e-6);
  attention<Bf16, float, 6, 2, 20>(70, {0.2f, 0, 0.0f}, 2e-2);
  attention<F16, Bf16, 2, 1, 33>(40, {0.2f, 5, 0.0f}, 2e-3);
}

// A query whose scores fall as keys come: every fold rescales by 1, every weight but the first is
// tiny; and the other way round.
void extreme_scores() {
  for (const float scale : {-40.0f, 40.0f, 0.0f}) {
    attention<float, float, 2, 2, 12>(66, {scale, 0, 0.0f}, 5e-5);
  }
}

template <typename T>
void heads(double tolerance) {
  constexpr std::size_t kHeadDim = 22;
  constexpr std::size_t kRotary = 12;
  const std::vector<T> x = random_values<T>(kHeadDim, 4);
  const std::vector<float> weight = random_values<float>(kHeadDim, 5);
  std::vector<float> sine(kRotary / 2), cosine(kRotary / 2);
  for (std::size_t i = 0; i < sine.size(); ++i) {
    sine[i] = std::sin(static_cast<float>(i + 1));
    cosine[i] = std::cos(static_cast<float>(i + 1));
  }
  for (const RopePairs pairs : {RopePairs::kHalves, RopePairs::kInterleaved}) {
    std::vector<double> expected(kHeadDim);
    double squares = 0.0;
    for (const T& value : x) squares += static_cast<double>(to_float(value)) * to_float(value);
    const double scale = 1.0 / std::sqrt(squares / kHeadDim + 0.01);
    for (std::size_t j = 0; j < kHeadDim; ++j) expected[j] = to_float(x[j]) * weight[j] * scale;
    for (std::size_t i = 0; i < kRotary / 2; ++i) {
      const bool interleaved = pairs == RopePairs::kInterleaved;
      double& a = expected[interleaved ? 2 * i : i];
      double& b = expected[interleaved ? 2 * i + 1 : i + kRotary / 2];
      const double first = a;
      a = first * cosine[i] - b * sine[i];
      b = first * sine[i] + b * cosine[i];
    }
    std::vector<T> y = x;
    transform_head<kHeadDim>(y.data(), y.data(),
                             {weight.data(), 0.01f, sine.data(), cosine.data(), kRotary, pairs});
    for (std::size_t j = 0; j < kHeadDim; ++j) {
      CHECK(std::abs(to_float(y[j]) - expected[j]) <= tolerance);
    }
  }
  std::vector<T> same(kHeadDim);
  transform_head<kHeadDim>(same.data(), x.data(), {});
  CHECK(same_bits(same.data(), x.data(), kHeadDim));
}

// One row by its definition, in double precision.
std::vector<double> layer_norm_of(const std::vector<double>& x, const std::vector<float>& w,
                                  const std::vector<float>& b, double epsilon) {
  const auto size = static_cast<double>(x.size());
  double mean = 0.0, variance = 0.0;
  for (const double value : x) mean += value / size;
  for (const double value : x) variance += (value - mean) * (value - mean) / size;
  std::vector<double> y;
  for (std::size_t j = 0; j < x.size(); ++j) {
    y.push_back((x[j] - mean) / std::sqrt(variance + epsilon) * w[j] + b[j]);
  }
  return y;
}

template <typename T>
void layer_norm(std::size_t size, double tolerance) {
  std::vector<T> x = random_values<T>(size, 6);
  for (T& value : x) value = from_float<T>(to_float(value) + 3.0f);  // a mean to take away
  const std::vector<float> w = random_values<float>(size, 7), b = random_values<float>(size, 8);
  const std::vector<float> none(size, 0.0f);
  std::vector<double> wide;
  for (const T& value : x) wide.push_back(to_float(value));
  for (const bool has_bias : {true, false}) {
    const std::vector<double> expected = layer_norm_of(wide, w, has_bias ? b : none, 0.01);
    std::vector<T> y = x;
    layer_norm_row(y.data(), y.data(), w.data(), has_bias ? b.data() : nullptr, size, 0.01f);
    for (std::size_t j = 0; j < size; ++j) {
      CHECK(std::abs(to_float(y[j]) - expected[j]) <= tolerance);
    }
  }
}

// Equal probabilities go to the lower number, whether they come first or last.
void choices_of_experts() {
  std::int32_t experts[3];
  float weights[3];
  const float tied[] = {1.0f, 2.0f, 1.0f, 2.0f, 2.0f};
  choose_experts<5, 3>(tied, true, experts, weights);
  CHECK(experts[0] == 1 && experts[1] == 3 && experts[2] == 4);
  for (const float weight : weights) CHECK(std::abs(weight - 1.0f / 3.0f) < 1e-6f);
  const float logits[] = {0.0f, std::log(2.0f), 0.0f, std::log(4.0f), -INFINITY};
  choose_experts<5, 3>(logits, false, experts, weights);
  CHECK(experts[0] == 3 && experts[1] == 1 && experts[2] == 0);
  CHECK(std::abs(weights[0] - 0.5f) < 1e-6f && std::abs(weights[1] - 0.25f) < 1e-6f);
  CHECK(std::abs(weights[2] - 0.125f) < 1e-6f);
  const Bf16 nan = from_float<Bf16>(std::nanf(""));
  const Bf16 unknown[] = {nan, nan, nan, nan, nan};
  choose_experts<5, 3>(unknown, true, experts, weights);
  CHECK(experts[0] == 0 && experts[1] == 1 && experts[2] == 2);
}

struct Half {
  simd::F32 operator()(simd::F32 x) const { return x * simd::set(0.5f); }
};

template <typename T, typename W>
struct Mixture {
  static constexpr std::size_t kHidden = 22, kIntermediate = 9, kExperts = 5, kTopK = 2;
  static constexpr std::size_t kMatrix = kHidden * kIntermediate;
  static constexpr std::size_t kRows = 70;

  std::vector<T> x = random_values<T>(kRows * kHidden, 9);
  std::vector<W> matrices = random_values<W>(3 * kExperts * kMatrix, 10);
  std::vector<std::int32_t> experts;
  std::vector<float> weights;

  Mixture() {
    const std::vector<float> logits = random_values<float>(kRows * kExperts, 11);
    experts.resize(kRows * kTopK), weights.resize(kRows * kTopK);
    for (std::size_t row = 0; row < kRows; ++row) {
      choose_experts<kExperts, kTopK>(&logits[row * kExperts], row % 2 == 0, &experts[row * kTopK],
                                      &weights[row * kTopK]);
    }
  }

  const W* matrix(std::size_t role, std::size_t expert) const {
    return &matrices[(role * kExperts + expert) * kMatrix];
  }

  // Rows [first, first + count), all of one call.
  std::vector<T> run(std::size_t first, std::size_t count) const {
    std::vector<T> out(count * kHidden), rows(out), gate(count * kIntermediate), up(gate);
    std::vector<float> sums(count * kHidden, std::nanf(""));
    const ExpertMixture<T, kHidden, kIntermediate, kExperts, kTopK, Half, W> mixture{
        {out.data(), kHidden},
        {&x[first * kHidden], kHidden},
        &experts[first * kTopK],
        &weights[first * kTopK],
        {rows.data(), gate.data(), up.data(), sums.data()}};
    mixture.run(count, [&](std::size_t role, std::size_t expert) {
      const auto stride = static_cast<std::ptrdiff_t>(role == 2 ? kIntermediate : kHidden);
      return MatrixRows<const W>{matrix(role, expert), stride};
    });
    return out;
  }

  double expected(std::size_t row, std::size_t column) const {
    double sum = 0.0;
    for (std::size_t rank = 0; rank < kTopK; ++rank) {
      const auto expert = static_cast<std::size_t>(experts[row * kTopK + rank]);
      double result = 0.0;
      for (std::size_t i = 0; i < kIntermediate; ++i) {
        double gate = 0.0, up = 0.0;
        for (std::size_t j = 0; j < kHidden; ++j) {
          const double value = to_float(x[row * kHidden + j]);
          gate += value * to_float(matrix(0, expert)[i * kHidden + j]);
          up += value * to_float(matrix(1, expert)[i * kHidden + j]);
        }
        result += 0.5 * gate * up * to_float(matrix(2, expert)[column * kIntermediate + i]);
      }
      sum += weights[row * kTopK + rank] * result;
    }
    return sum;
  }
};

// Relative to the largest number; and to the last bit whoever shares the call.
template <typename T, typename W = T>
void mixtures(double tolerance) {
  const Mixture<T, W> mixture;
  constexpr std::size_t kHidden = mixture.kHidden, kRows = mixture.kRows;
  const std::vector<T> whole = mixture.run(0, kRows);
  double worst = 0.0, largest = 0.0;
  for (std::size_t i = 0; i < whole.size(); ++i) {
    const double exact = mixture.expected(i / kHidden, i % kHidden);
    worst = std::max(worst, std::abs(to_float(whole[i]) - exact));
    largest = std::max(largest, std::abs(exact));
  }
  CHECK(worst <= tolerance * largest);
  for (std::size_t chunk : {std::size_t{1}, std::size_t{7}, std::size_t{33}}) {
    for (std::size_t start = 0; start < kRows; start += chunk) {
      const std::size_t count = std::min(chunk, kRows - start);
      const std::vector<T> part = mixture.run(start, count);
      CHECK(same_bits(part.data(), whole.data() + start * kHidden, part.size()));
    }
  }
}

// Chunks of any lengths and pasts in one call, on any number of threads: each row as by itself.
void sequences_share_a_call() {
  constexpr std::size_t kLength = 300, kRow = 6 * 16;
  for (const std::size_t window : {std::size_t{0}, std::size_t{50}}) {
    const Problem<float, float, 6, 2, 16> problem{kLength, {0.25f, window, 0.0f}};
    std::vector<std::int32_t> blocks(problem.num_blocks());
    std::iota(blocks.begin(), blocks.end(), 0);
    auto cache = problem.cached(blocks);
    const std::vector<float> whole = problem.attend(cache, blocks, 0, kLength);
    // Their rows are those of the problem from a row on, one after another.
    std::vector<SequenceRows> sequences;
    std::vector<float> q, expected;
    for (const auto& [start, count] : std::vector<std::pair<std::size_t, std::size_t>>{
             {17, 1}, {0, 1}, {290, 10}, {120, 1}, {3, 37}, {299, 1}, {0, 300}, {64, 2}}) {
      sequences.push_back({blocks.data(), q.size() / kRow, count, start});
      const auto first = static_cast<std::ptrdiff_t>(start * kRow);
      const auto last = static_cast<std::ptrdiff_t>((start + count) * kRow);
      q.insert(q.end(), problem.q.begin() + first, problem.q.begin() + last);
      expected.insert(expected.end(), whole.begin() + first, whole.begin() + last);
    }
    for (const int threads : {1, 2, 5}) {
      ThreadPool::instance().set_num_threads(threads);
      std::vector<float> out(q.size(), std::nanf(""));
      PagedAttention<float, float, 6, 2, 16>::run(
          {out.data(), kRow}, {q.data(), kRow}, {cache.keys.data(), cache.values.data()},
          sequences.data(), sequences.size(), problem.options);
      CHECK(same_bits(out.data(), expected.data(), out.size()));
    }
    ThreadPool::instance().set_num_threads(0);
  }
}

}  // namespace

int main() {
  attention_of_many_shapes();
  sequences_share_a_call();
  extreme_scores();
  heads<float>(2e-6);
  heads<Bf16>(2e-2);
  for (const std::size_t size : {1, 3, 16, 37}) layer_norm<float>(size, 5e-6);
  layer_norm<Bf16>(37, 3e-2);
  choices_of_experts();
  mixtures<float>(1e-6);
  mixtures<Bf16>(2e-2);
  mixtures<float, Bf16>(1e-6);
  mixtures<float, F16>(1e-6);
  std::printf("%s\n", simd::kInstructionSet);
  return 0;
}
