#include "parallel.hpp"
#include "qwen3_threads.h"
#include "simd.hpp"

void qwen3_infinicore_set_num_threads(int count) {
  qwen3::kernels::ThreadPool::instance().set_num_threads(count);
}

int qwen3_infinicore_num_threads(void) {
  return qwen3::kernels::ThreadPool::instance().num_threads();
}

const char* qwen3_infinicore_instruction_set(void) { return qwen3::kernels::simd::kInstructionSet; }
