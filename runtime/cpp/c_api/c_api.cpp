#include "c_api/c_api.hpp"

#include <cstdio>
#include <exception>
#include <mutex>
#include <new>
#include <string>
#include <utility>

#include "engine/check.hpp"
#include "engine/engine.hpp"

struct qwen3_engine {
  std::mutex mutex;
  std::unique_ptr<qwen3::Engine> engine;
};

namespace {

constexpr size_t kMaxErrorLength = 1024;
thread_local char last_error[kMaxErrorLength] = "";

qwen3_status fail(qwen3_status status, const char* text) noexcept {
  std::snprintf(last_error, sizeof last_error, "%s", text);
  return status;
}

class InvalidArgument : public qwen3::EngineFailure {
 public:
  using EngineFailure::EngineFailure;
};

void expect(bool condition, const char* message) {
  if (!condition) throw InvalidArgument(message);
}

// Runs `body`; whatever it throws becomes a status and a text.
template <class Body>
qwen3_status guarded(Body body) noexcept {
  try {
    body();
    return QWEN3_OK;
  } catch (const InvalidArgument& error) {
    return fail(QWEN3_INVALID_ARGUMENT, error.what());
  } catch (const std::bad_alloc&) {
    return fail(QWEN3_OUT_OF_MEMORY, "out of host memory");
  } catch (const std::exception& error) {
    return fail(QWEN3_FAILED, error.what());
  } catch (...) {
    return fail(QWEN3_FAILED, "an exception of unknown type");
  }
}

class CallbackWeightSource final : public qwen3::WeightSource {
 public:
  CallbackWeightSource(qwen3_read_weight read, void* context) : read_(read), context_(context) {}

  void with_weight(const std::string& name, std::optional<size_t> layer, size_t num_bytes,
                   void (*use)(void* context, const void* host), void* context) override {
    const int index = layer ? static_cast<int>(*layer) : QWEN3_NO_LAYER;
    const void* host = read_(context_, name.c_str(), index, num_bytes);
    if (host == nullptr) {
      const std::string place = layer ? " of layer " + std::to_string(*layer) : "";
      throw qwen3::EngineFailure("weight " + name + place + " (" + std::to_string(num_bytes) +
                                 " bytes) was not given");
    }
    use(context, host);
  }

 private:
  qwen3_read_weight read_;
  void* context_;
};

qwen3::Int32Span span(const int32_t* values, size_t size, const char* message) {
  expect(values != nullptr || size == 0, message);
  return {values, size};
}

qwen3::CachePlaces places_of(const qwen3_cache_places& places, size_t num_seqs) {
  qwen3::CachePlaces result;
  if (places.slots != nullptr) result.slots = {places.slots, num_seqs};
  if (places.block_table != nullptr) {
    result.block_table = {places.block_table, num_seqs * places.max_blocks};
    result.max_blocks = places.max_blocks;
  }
  return result;
}

qwen3::Batch batch_of(const qwen3_batch& batch) {
  qwen3::Batch result;
  result.token_ids = span(batch.token_ids, batch.num_tokens, "batch: token_ids is null");
  result.positions = span(batch.positions, batch.num_tokens, "batch: positions is null");
  result.query_lens = span(batch.query_lens, batch.num_seqs, "batch: query_lens is null");
  result.seq_lens = span(batch.seq_lens, batch.num_seqs, "batch: seq_lens is null");
  result.logit_rows = span(batch.logit_rows, batch.num_logit_rows, "batch: logit_rows is null");
  expect(batch.places != nullptr || batch.num_cache_groups == 0, "batch: places is null");
  for (size_t group = 0; group < batch.num_cache_groups; ++group) {
    result.places.push_back(places_of(batch.places[group], batch.num_seqs));
  }
  return result;
}

qwen3_cache_kind kind_of(qwen3::CacheKind kind) {
  switch (kind) {
    case qwen3::CacheKind::kPaged:
      return QWEN3_CACHE_PAGED;
    case qwen3::CacheKind::kRecurrent:
      return QWEN3_CACHE_RECURRENT;
    case qwen3::CacheKind::kContiguous:
      break;
  }
  return QWEN3_CACHE_CONTIGUOUS;
}

}  // namespace

namespace qwen3 {

qwen3_status create_c_engine(EngineFactory factory, const qwen3_engine_options* options,
                             qwen3_engine** engine) noexcept {
  return guarded([&] {
    expect(engine != nullptr, "engine is null");
    *engine = nullptr;
    expect(options != nullptr, "options is null");
    expect(options->read_weight != nullptr, "options: read_weight is null");
    auto created = std::make_unique<qwen3_engine>();
    created->engine =
        factory({options->max_model_len, options->max_num_seqs, options->max_num_batched_tokens,
                 options->device_id, options->num_blocks});
    CallbackWeightSource source(options->read_weight, options->context);
    created->engine->load_weights(source);
    *engine = created.release();
  });
}

}  // namespace qwen3

int qwen3_engine_abi_version(void) { return QWEN3_ENGINE_ABI_VERSION; }

void qwen3_engine_destroy(qwen3_engine* engine) { delete engine; }

size_t qwen3_engine_vocab_size(const qwen3_engine* engine) {
  return engine == nullptr ? 0 : engine->engine->vocab_size();
}

size_t qwen3_engine_num_cache_groups(const qwen3_engine* engine) {
  return engine == nullptr ? 0 : engine->engine->cache_groups().size();
}

qwen3_status qwen3_engine_get_cache_group(const qwen3_engine* engine, size_t index,
                                          qwen3_cache_group* group) {
  return guarded([&] {
    expect(engine != nullptr && group != nullptr, "engine or group is null");
    expect(index < engine->engine->cache_groups().size(), "there is no such cache group");
    const qwen3::CacheGroup& found = engine->engine->cache_groups()[index];
    *group = {found.name.c_str(),  kind_of(found.kind),       found.layers.data(),
              found.layers.size(), found.num_key_value_heads, found.head_dim,
              found.window,        found.block_size};
  });
}

qwen3_status qwen3_engine_forward(qwen3_engine* engine, const qwen3_batch* batch, float* logits,
                                  size_t num_logits) {
  return guarded([&] {
    expect(engine != nullptr && batch != nullptr, "engine or batch is null");
    const qwen3::Batch step = batch_of(*batch);
    const size_t needed = step.logit_rows.size * engine->engine->vocab_size();
    expect(num_logits >= needed, "logits have no room for num_logit_rows rows of vocab_size");
    expect(logits != nullptr || needed == 0, "logits is null");
    const std::lock_guard<std::mutex> lock(engine->mutex);
    engine->engine->forward(step, logits);
  });
}

qwen3_status qwen3_engine_copy_blocks(qwen3_engine* engine, size_t group, const int32_t* sources,
                                      const int32_t* destinations, size_t num_blocks) {
  return guarded([&] {
    expect(engine != nullptr, "engine is null");
    const qwen3::Int32Span from = span(sources, num_blocks, "sources is null");
    const qwen3::Int32Span to = span(destinations, num_blocks, "destinations is null");
    const std::lock_guard<std::mutex> lock(engine->mutex);
    engine->engine->copy_blocks(group, from, to);
  });
}

const char* qwen3_engine_last_error(void) { return last_error; }
