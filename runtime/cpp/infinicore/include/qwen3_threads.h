// Threads of the embedded InfiniCore's CPU kernels.
#pragma once

#include "infinicore.h"

#ifdef __cplusplus
extern "C" {
#endif

// Sets how many threads an operator may use, the calling one included; below 1 means one for each
// processor this process may run on, which is also the default. Results do not depend on it.
__export void qwen3_infinicore_set_num_threads(int count);

__export int qwen3_infinicore_num_threads(void);

// Instruction set the kernels were compiled for: "avx512", "avx2", "neon" or "portable".
__export const char* qwen3_infinicore_instruction_set(void);

#ifdef __cplusplus
}
#endif
