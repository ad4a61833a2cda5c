// What a request changes of a row of logits before a token is chosen from it.
//
// The NumPy twin, step for step, is adjust_rows in runtime/qwen3_runtime/sampling/reference.py.
#pragma once

#include <cstddef>
#include <cstdint>

namespace qwen3 {

// Borrowed arrays; what is not wanted is empty, null or neutral.
struct Adjustment {
  const uint32_t* mask = nullptr;  // bit t % 32 of word t / 32: whether token t is possible
  size_t mask_words = 0;           // tokens beyond the last word are impossible
  const int32_t* bias_ids = nullptr;
  const float* bias_values = nullptr;  // added; minus infinity excludes a token
  size_t num_biases = 0;
  const int32_t* context = nullptr;  // tokens of prompt and answer so far
  size_t context_len = 0;
  size_t prompt_len = 0;
  double repetition_penalty = 1.0;  // divides positive logits of tokens in the context
  double presence_penalty = 0.0;    // subtracted from tokens of the answer
  double frequency_penalty = 0.0;   // subtracted from tokens of the answer, once per occurrence
};

// Changes one row in place, in the order mask, bias, repetition, frequency, presence (vLLM's).
// Throws SamplingError when a token id is outside the vocabulary; the row is then partly changed.
void adjust_row(float* logits, size_t vocab_size, const Adjustment& adjustment);

}  // namespace qwen3
