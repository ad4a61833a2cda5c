// The numbers of an attention.
#pragma once

#include <cstddef>

namespace qwen3::kernels {

struct AttentionOptions {
  float scale;         // of q . k
  std::size_t window;  // keys a query sees, itself included; 0: all before it
  float softcap;       // scores become softcap * tanh(score / softcap); 0: they stay
};

}  // namespace qwen3::kernels
