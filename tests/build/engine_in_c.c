/* An engine called from C. `engine_in_c WEIGHTS_DIR` reads weights from files, runs two steps, tries
 * wrong calls, and writes all logits to standard output as float32. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "qwen3_engine.h"

#define CHECK(condition)                                                                \
  do {                                                                                  \
    if (!(condition)) {                                                                 \
      fprintf(stderr, "line %d: %s\n", __LINE__, #condition);                           \
      fprintf(stderr, "last error: %s\n", qwen3_engine_last_error());                   \
      return 1;                                                                         \
    }                                                                                   \
  } while (0)

struct weight_files {
  const char *directory;
  void *memory;
  int calls;
};

/* WEIGHTS_DIR/<name> or WEIGHTS_DIR/<name>.<layer>; null when the file is not of that size. */
static const void *read_weight(void *context, const char *name, int layer, size_t num_bytes) {
  struct weight_files *files = context;
  char path[4096];
  FILE *stream;
  size_t count;
  ++files->calls;
  if (layer == QWEN3_NO_LAYER) {
    snprintf(path, sizeof path, "%s/%s", files->directory, name);
  } else {
    snprintf(path, sizeof path, "%s/%s.%d", files->directory, name, layer);
  }
  stream = fopen(path, "rb");
  if (stream == NULL) return NULL;
  files->memory = realloc(files->memory, num_bytes + 1);
  count = fread(files->memory, 1, num_bytes + 1, stream);
  fclose(stream);
  return count == num_bytes ? files->memory : NULL;
}

static const void *read_nothing(void *context, const char *name, int layer, size_t num_bytes) {
  (void)context, (void)name, (void)layer, (void)num_bytes;
  return NULL;
}

static int run(qwen3_engine *engine, const qwen3_batch *batch) {
  const size_t count = batch->num_logit_rows * qwen3_engine_vocab_size(engine);
  float *logits = malloc(count * sizeof(float));
  CHECK(logits != NULL);
  CHECK(qwen3_engine_forward(engine, batch, logits, count) == QWEN3_OK);
  CHECK(fwrite(logits, sizeof(float), count, stdout) == count);
  free(logits);
  return 0;
}

/* A prefill of two sequences, then a decode of one beside a second chunk of the other. */
static int run_two_steps(qwen3_engine *engine) {
  const int32_t slots[] = {2, 0};
  const qwen3_cache_places places[] = {{slots, NULL, 0}, {slots, NULL, 0}};
  const int32_t first_ids[] = {5, 300, 17, 17, 8}, first_positions[] = {0, 1, 2, 0, 1};
  const int32_t first_queries[] = {3, 2}, first_lens[] = {3, 2}, first_rows[] = {0, 1, 2, 3, 4};
  const int32_t ids[] = {42, 1, 2, 3}, positions[] = {3, 2, 3, 4};
  const int32_t queries[] = {1, 3}, lens[] = {4, 5}, rows[] = {0, 3};
  const qwen3_batch first = {.token_ids = first_ids, .positions = first_positions, .num_tokens = 5,
                             .query_lens = first_queries, .seq_lens = first_lens, .num_seqs = 2,
                             .logit_rows = first_rows, .num_logit_rows = 5,
                             .places = places, .num_cache_groups = 2};
  const qwen3_batch second = {.token_ids = ids, .positions = positions, .num_tokens = 4,
                              .query_lens = queries, .seq_lens = lens, .num_seqs = 2,
                              .logit_rows = rows, .num_logit_rows = 2,
                              .places = places, .num_cache_groups = 2};
  return run(engine, &first) != 0 || run(engine, &second) != 0;
}

static int check_groups(const qwen3_engine *engine) {
  qwen3_cache_group group;
  CHECK(qwen3_engine_num_cache_groups(engine) == 2);
  CHECK(qwen3_engine_get_cache_group(engine, 0, &group) == QWEN3_OK);
  CHECK(strcmp(group.name, "full") == 0 && group.window == 0);
  CHECK(group.num_layers == 2 && group.layers[0] == 0 && group.layers[1] == 2);
  CHECK(qwen3_engine_get_cache_group(engine, 1, &group) == QWEN3_OK);
  CHECK(strcmp(group.name, "window_3") == 0 && group.window == 3);
  CHECK(group.kind == QWEN3_CACHE_CONTIGUOUS);
  CHECK(group.num_key_value_heads == 2 && group.head_dim == 14);
  CHECK(qwen3_engine_get_cache_group(engine, 2, &group) == QWEN3_INVALID_ARGUMENT);
  CHECK(strcmp(qwen3_engine_last_error(), "there is no such cache group") == 0);
  CHECK(qwen3_engine_get_cache_group(NULL, 0, &group) == QWEN3_INVALID_ARGUMENT);
  CHECK(qwen3_engine_get_cache_group(engine, 0, NULL) == QWEN3_INVALID_ARGUMENT);
  return 0;
}

static int check_refused_batches(qwen3_engine *engine) {
  static float logits[331];
  const int32_t zero[] = {0}, one[] = {1}, far_away[] = {331};
  const qwen3_cache_places places[] = {{zero, NULL, 0}, {zero, NULL, 0}};
  const qwen3_batch good = {.token_ids = one, .positions = zero, .num_tokens = 1,
                            .query_lens = one, .seq_lens = one, .num_seqs = 1,
                            .logit_rows = zero, .num_logit_rows = 1,
                            .places = places, .num_cache_groups = 2};
  qwen3_batch bad = good;
  CHECK(qwen3_engine_forward(engine, &good, logits, 331) == QWEN3_OK);
  CHECK(qwen3_engine_forward(NULL, &good, logits, 331) == QWEN3_INVALID_ARGUMENT);
  CHECK(qwen3_engine_forward(engine, NULL, logits, 331) == QWEN3_INVALID_ARGUMENT);
  CHECK(qwen3_engine_forward(engine, &good, NULL, 331) == QWEN3_INVALID_ARGUMENT);
  CHECK(qwen3_engine_forward(engine, &good, logits, 330) == QWEN3_INVALID_ARGUMENT);
  CHECK(strstr(qwen3_engine_last_error(), "no room") != NULL);
  bad.token_ids = NULL;
  CHECK(qwen3_engine_forward(engine, &bad, logits, 331) == QWEN3_INVALID_ARGUMENT);
  CHECK(strcmp(qwen3_engine_last_error(), "batch: token_ids is null") == 0);
  bad.token_ids = far_away;
  CHECK(qwen3_engine_forward(engine, &bad, logits, 331) == QWEN3_FAILED);
  CHECK(strcmp(qwen3_engine_last_error(), "token id 331 is outside the vocabulary of 331") == 0);
  bad = good;
  bad.num_cache_groups = 1;
  CHECK(qwen3_engine_forward(engine, &bad, logits, 331) == QWEN3_FAILED);
  bad.places = NULL;
  CHECK(qwen3_engine_forward(engine, &bad, logits, 331) == QWEN3_INVALID_ARGUMENT);
  bad = good;
  bad.num_logit_rows = 0;
  bad.logit_rows = NULL;
  CHECK(qwen3_engine_forward(engine, &bad, NULL, 0) == QWEN3_OK);
  return 0;
}

static int check_refused_options(qwen3_engine_options options) {
  qwen3_engine *engine = (qwen3_engine *)&engine;
  CHECK(qwen3_engine_create(&options, NULL) == QWEN3_INVALID_ARGUMENT);
  CHECK(qwen3_engine_create(NULL, &engine) == QWEN3_INVALID_ARGUMENT && engine == NULL);
  options.read_weight = NULL;
  CHECK(qwen3_engine_create(&options, &engine) == QWEN3_INVALID_ARGUMENT && engine == NULL);
  options.read_weight = read_nothing;
  CHECK(qwen3_engine_create(&options, &engine) == QWEN3_FAILED && engine == NULL);
  CHECK(strstr(qwen3_engine_last_error(), "weight embed_tokens (") != NULL);
  CHECK(strstr(qwen3_engine_last_error(), "was not given") != NULL);
  options.max_model_len = 1u << 20;
  CHECK(qwen3_engine_create(&options, &engine) == QWEN3_FAILED && engine == NULL);
  CHECK(strstr(qwen3_engine_last_error(), "max_position_embeddings") != NULL);
  options.max_model_len = 0;
  CHECK(qwen3_engine_create(&options, &engine) == QWEN3_FAILED && engine == NULL);
  return 0;
}

int main(int argc, char **argv) {
  struct weight_files files = {argc > 1 ? argv[1] : ".", NULL, 0};
  const qwen3_engine_options options = {64, 3, 16, 0, 0, read_weight, &files};
  qwen3_engine *engine = NULL;
  CHECK(qwen3_engine_abi_version() == QWEN3_ENGINE_ABI_VERSION);
  CHECK(strcmp(qwen3_engine_last_error(), "") == 0);
  CHECK(qwen3_engine_create(&options, &engine) == QWEN3_OK);
  CHECK(engine != NULL && files.calls > 0);
  free(files.memory);
  CHECK(qwen3_engine_vocab_size(engine) == 331);
  CHECK(qwen3_engine_vocab_size(NULL) == 0 && qwen3_engine_num_cache_groups(NULL) == 0);
  if (run_two_steps(engine) != 0 || check_groups(engine) != 0) return 1;
  if (check_refused_batches(engine) != 0 || check_refused_options(options) != 0) return 1;
  qwen3_engine_destroy(engine);
  qwen3_engine_destroy(NULL);
  return 0;
}
