// Which elements of a head rope rotates with each other.
#pragma once

namespace qwen3::kernels {

// How the elements of a head form the pairs that are rotated.
enum class RopePairs {
  kInterleaved,  // 2i and 2i + 1 (GPT-J)
  kHalves,       // i and i + size / 2 (GPT-NeoX; Llama and Qwen in Hugging Face's layout)
};

}  // namespace qwen3::kernels
