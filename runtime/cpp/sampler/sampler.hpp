// Chooses the next token of a sequence from a row of float32 logits on the host.
//
// A row's token depends on its own logits and parameters only, and its random number on seed and
// position only, so a request gives the same tokens whatever shares its batch. The NumPy twin,
// step for step, is runtime/qwen3_runtime/sampling/reference.py.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <vector>

namespace qwen3 {

// A row that no token can be chosen from, or parameters that mean nothing.
class SamplingError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Temperature comes first, then top-k, then min-p, then top-p on what is left.
struct SamplingRow {
  double temperature;  // >= 0; 0 takes the likeliest token
  double top_p;        // in (0, 1]; keeps the fewest tokens that hold this probability
  double min_p;        // in [0, 1]; keeps tokens at least this times as likely as the likeliest
  int64_t top_k;       // keeps this many likeliest tokens and ties with the last; <= 0 keeps all
  uint64_t seed;
  uint64_t position;  // tokens of the sequence before the one to choose
};

// Holds the scratch memory of one caller; not for two threads at once.
class Sampler {
 public:
  // Returns the token chosen from logits [vocab_size]. Of equal logits the lowest token counts as
  // likelier. Minus infinity excludes a token.
  //
  // Throws SamplingError when the row holds NaN or infinity or nothing but minus infinity, or when
  // a parameter is out of range.
  int32_t sample_row(const float* logits, size_t vocab_size, const SamplingRow& row);

 private:
  struct Candidate {
    double weight;  // probability up to a common factor; the likeliest token weighs 1
    float logit;
    int32_t token;
  };

  int32_t draw(const float* logits, size_t vocab_size, float largest, const SamplingRow& row);
  void keep_top_k(const float* logits, size_t vocab_size, int64_t top_k);
  void keep_top_p(double top_p);
  double total_weight() const;

  std::vector<Candidate> candidates_;  // ascending by token between the steps
  std::vector<float> ordered_;         // a row's logits while the k-th largest is found
};

}  // namespace qwen3
