/* A generated engine as a plain C library.
 *
 * The library of an engine (libqwen3_1_7b_cpu.so) exports the functions below and nothing else. It
 * needs no Python. All engines export the same names: a program that links one engine calls them
 * directly, a program with several loads each with dlopen(..., RTLD_LOCAL) and dlsym.
 *
 * Functions return QWEN3_OK or say in qwen3_engine_last_error() what went wrong. No exception
 * leaves the library and nothing ends the process. Calls on one engine may come from any thread;
 * they wait for each other. Different engines run independently.
 */
#ifndef QWEN3_ENGINE_H_
#define QWEN3_ENGINE_H_

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define QWEN3_API __attribute__((visibility("default")))
#else
#define QWEN3_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* Raised when a struct or function below changes its meaning; see qwen3_engine_abi_version(). */
#define QWEN3_ENGINE_ABI_VERSION 2

/* `layer` of weights outside the layers. */
#define QWEN3_NO_LAYER (-1)

typedef struct qwen3_engine qwen3_engine;

typedef enum {
  QWEN3_OK = 0,
  QWEN3_INVALID_ARGUMENT = 1, /* a pointer is null or a size does not fit; nothing was done */
  QWEN3_FAILED = 2,           /* a bad batch, a missing weight, or the device's library failed */
  QWEN3_OUT_OF_MEMORY = 3     /* host memory; a device without memory is QWEN3_FAILED */
} qwen3_status;

/* Gives the engine one weight: returns `num_bytes` bytes, row-major in the dtype that the engine's
 * manifest.json lists under `weights`, or null when there is no such weight. The memory must stay
 * as it is until the next call or until qwen3_engine_create returns. */
typedef const void* (*qwen3_read_weight)(void* context, const char* name, int layer,
                                         size_t num_bytes);

/* All memory an engine ever takes is taken for these bounds when it is created. */
typedef struct {
  size_t max_model_len;          /* most tokens of a sequence */
  size_t max_num_seqs;           /* most sequences in flight: slots of the cache */
  size_t max_num_batched_tokens; /* most tokens of a step */
  int device_id;                 /* which of the device's instances */
  size_t num_blocks;             /* blocks of every paged cache group; 0 where there is none */
  qwen3_read_weight read_weight;
  void* context; /* handed to read_weight */
} qwen3_engine_options;

typedef enum {
  QWEN3_CACHE_CONTIGUOUS = 0, /* a slot holds a whole sequence */
  QWEN3_CACHE_PAGED = 1,      /* a block table lists the blocks of a sequence */
  QWEN3_CACHE_RECURRENT = 2   /* a slot holds a state of fixed size */
} qwen3_cache_kind;

/* Layers that share one shape of cache and therefore one table of places. Strings and arrays belong
 * to the engine. */
typedef struct {
  const char* name;
  qwen3_cache_kind kind;
  const int32_t* layers; /* [num_layers] */
  size_t num_layers;
  size_t num_key_value_heads;
  size_t head_dim;
  int32_t window;    /* 0: every earlier token is attended to */
  size_t block_size; /* tokens of a block of a paged group, else 0 */
} qwen3_cache_group;

/* Where the sequences of a batch lie in one cache group; what a kind does not use is null. */
typedef struct {
  const int32_t* slots;       /* [num_seqs], contiguous and recurrent groups */
  const int32_t* block_table; /* [num_seqs, max_blocks], paged groups */
  size_t max_blocks;
} qwen3_cache_places;

/* One step: any mix of prefills and decodes. Sequence s brings query_lens[s] new tokens, packed in
 * order, and has seq_lens[s] tokens in all, new ones included; its new tokens stand at positions
 * seq_lens[s] - query_lens[s] onwards. */
typedef struct {
  const int32_t* token_ids; /* [num_tokens] */
  const int32_t* positions; /* [num_tokens] */
  size_t num_tokens;
  const int32_t* query_lens; /* [num_seqs] */
  const int32_t* seq_lens;   /* [num_seqs] */
  size_t num_seqs;
  const int32_t* logit_rows; /* [num_logit_rows], which tokens' logits are wanted */
  size_t num_logit_rows;
  const qwen3_cache_places* places; /* [num_cache_groups], in the order of the engine's groups */
  size_t num_cache_groups;
} qwen3_batch;

/* QWEN3_ENGINE_ABI_VERSION of the header the library was built with. */
QWEN3_API int qwen3_engine_abi_version(void);

/* Creates an engine and loads its weights; `*engine` is null unless the result is QWEN3_OK. */
QWEN3_API qwen3_status qwen3_engine_create(const qwen3_engine_options* options,
                                           qwen3_engine** engine);

/* Null is fine. */
QWEN3_API void qwen3_engine_destroy(qwen3_engine* engine);

/* Columns of the logits. */
QWEN3_API size_t qwen3_engine_vocab_size(const qwen3_engine* engine);

QWEN3_API size_t qwen3_engine_num_cache_groups(const qwen3_engine* engine);

QWEN3_API qwen3_status qwen3_engine_get_cache_group(const qwen3_engine* engine, size_t index,
                                                    qwen3_cache_group* group);

/* Runs one step; `logits` receives [num_logit_rows, vocab_size] and has room for `num_logits`. When
 * the batch is refused, nothing has been changed. */
QWEN3_API qwen3_status qwen3_engine_forward(qwen3_engine* engine, const qwen3_batch* batch,
                                            float* logits, size_t num_logits);

/* Copies keys and values of blocks of the paged cache group `group`, bit for bit: block sources[i]
 * to destinations[i], both [num_blocks], in every layer of the group. A destination is named once
 * and is no source. When the copy is refused, nothing has been changed. */
QWEN3_API qwen3_status qwen3_engine_copy_blocks(qwen3_engine* engine, size_t group,
                                                const int32_t* sources, const int32_t* destinations,
                                                size_t num_blocks);

/* What the calling thread's last failed call said; empty when none has failed. Valid until the
 * thread's next failing call. */
QWEN3_API const char* qwen3_engine_last_error(void);

#ifdef __cplusplus
}
#endif

#endif /* QWEN3_ENGINE_H_ */
