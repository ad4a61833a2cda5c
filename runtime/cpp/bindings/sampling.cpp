#include "bindings/sampling.hpp"

#include <cstddef>
#include <initializer_list>
#include <string>
#include <vector>

#include "engine/check.hpp"
#include "kernels/parallel.hpp"
#include "sampler/adjustment.hpp"
#include "sampler/logprobs.hpp"
#include "sampler/sampler.hpp"

namespace py = pybind11;

namespace qwen3 {
namespace {

// Runs `body(row)` for every row, on several threads; a failure names its row.
template <class Body>
void for_rows(size_t num_rows, const Body& body) {
  kernels::parallel_for(num_rows, 1, [&](size_t begin, size_t end) {
    for (size_t row = begin; row < end; ++row) {
      try {
        body(row);
      } catch (const SamplingError& failure) {
        throw SamplingError("row " + std::to_string(row) + ": " + failure.what());
      }
    }
  });
}

size_t rows_of(const Rows<float>& logits, std::initializer_list<py::ssize_t> sizes) {
  require(logits.ndim() == 2, "logits must be [num_rows, vocab_size]");
  for (const py::ssize_t size : sizes) {
    require(size == logits.shape(0), "every row of logits needs its own sampling parameters");
  }
  return static_cast<size_t>(logits.shape(0));
}

// Entries of one row in an array that holds those of all rows.
struct Part {
  size_t begin;
  size_t size;
};

std::vector<Part> parts(const Rows<int64_t>& ends, py::ssize_t total) {
  std::vector<Part> found;
  size_t begin = 0;
  for (py::ssize_t i = 0; i < ends.size(); ++i) {
    const int64_t end = ends.at(i);
    require(end >= static_cast<int64_t>(begin) && end <= total, "ends must ascend to the total");
    found.push_back({begin, static_cast<size_t>(end) - begin});
    begin = static_cast<size_t>(end);
  }
  return found;
}

}  // namespace

Rows<int32_t> sample_rows(const Rows<float>& logits, const Rows<double>& temperature,
                          const Rows<double>& top_p, const Rows<double>& min_p,
                          const Rows<int64_t>& top_k, const Rows<uint64_t>& seed,
                          const Rows<uint64_t>& position) {
  const size_t num_rows = rows_of(logits, {temperature.size(), top_p.size(), min_p.size(),
                                           top_k.size(), seed.size(), position.size()});
  std::vector<SamplingRow> rows;
  for (py::ssize_t i = 0; i < static_cast<py::ssize_t>(num_rows); ++i) {
    rows.push_back(
        {temperature.at(i), top_p.at(i), min_p.at(i), top_k.at(i), seed.at(i), position.at(i)});
  }
  Rows<int32_t> tokens(static_cast<py::ssize_t>(num_rows));
  const float* values = logits.data();
  int32_t* chosen = tokens.mutable_data();
  const auto vocab_size = static_cast<size_t>(logits.shape(1));
  py::gil_scoped_release release;
  for_rows(num_rows, [&](size_t row) {
    thread_local Sampler sampler;
    chosen[row] = sampler.sample_row(values + row * vocab_size, vocab_size, rows[row]);
  });
  return tokens;
}

void adjust_rows(Rows<float>& logits, const Rows<uint32_t>& masks, const Rows<int64_t>& mask_rows,
                 const Rows<int32_t>& bias_ids, const Rows<float>& bias_values,
                 const Rows<int64_t>& bias_ends, const Rows<int32_t>& context,
                 const Rows<int64_t>& context_ends, const Rows<int64_t>& prompt_lens,
                 const Rows<double>& penalties) {
  const size_t num_rows = rows_of(logits, {mask_rows.size(), bias_ends.size(), context_ends.size(),
                                           prompt_lens.size(), penalties.size() / 3});
  require(masks.ndim() == 2 && penalties.ndim() == 2 && bias_ids.size() == bias_values.size(),
          "masks, penalties or biases have another shape");
  const std::vector<Part> biases = parts(bias_ends, bias_ids.size());
  const std::vector<Part> contexts = parts(context_ends, context.size());
  std::vector<Adjustment> adjustments(num_rows);
  for (size_t row = 0; row < num_rows; ++row) {
    const auto i = static_cast<py::ssize_t>(row);
    Adjustment& own = adjustments[row];
    if (mask_rows.at(i) >= 0) {
      require(mask_rows.at(i) < masks.shape(0), "there is no such mask");
      own.mask = masks.data(mask_rows.at(i), 0);
      own.mask_words = static_cast<size_t>(masks.shape(1));
    }
    own.bias_ids = bias_ids.data() + biases[row].begin;
    own.bias_values = bias_values.data() + biases[row].begin;
    own.num_biases = biases[row].size;
    own.context = context.data() + contexts[row].begin;
    own.context_len = contexts[row].size;
    own.prompt_len = static_cast<size_t>(prompt_lens.at(i));
    own.repetition_penalty = penalties.at(i, 0);
    own.presence_penalty = penalties.at(i, 1);
    own.frequency_penalty = penalties.at(i, 2);
  }
  float* values = logits.mutable_data();
  const auto vocab_size = static_cast<size_t>(logits.shape(1));
  py::gil_scoped_release release;
  for_rows(num_rows, [&](size_t row) {
    adjust_row(values + row * vocab_size, vocab_size, adjustments[row]);
  });
}

py::tuple logprob_rows(const Rows<float>& logits, const Rows<int32_t>& tokens, size_t num_top) {
  const size_t num_rows = rows_of(logits, {tokens.size()});
  const auto count = static_cast<py::ssize_t>(num_rows);
  const auto width = static_cast<py::ssize_t>(num_top);
  Rows<float> logprobs(count);
  Rows<int32_t> ranks(count);
  Rows<int32_t> top_ids({count, width});
  Rows<float> top_logprobs({count, width});
  const float* values = logits.data();
  const int32_t* chosen = tokens.data();
  float* own = logprobs.mutable_data();
  int32_t* rank = ranks.mutable_data();
  int32_t* ids = top_ids.mutable_data();
  float* tops = top_logprobs.mutable_data();
  const auto vocab_size = static_cast<size_t>(logits.shape(1));
  {
    py::gil_scoped_release release;
    for_rows(num_rows, [&](size_t row) {
      const TokenLogprobs found =
          token_logprobs(values + row * vocab_size, vocab_size, chosen[row], num_top,
                         ids + row * num_top, tops + row * num_top);
      own[row] = found.logprob;
      rank[row] = found.rank;
    });
  }
  return py::make_tuple(logprobs, ranks, top_ids, top_logprobs);
}

}  // namespace qwen3
