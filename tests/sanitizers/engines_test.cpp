// Whole engines through the C API, for sanitizers to watch: `engines_test LIBRARY...`.
//
// Every library is loaded, called in every way an engine can be, by several threads and beside the
// others, and unloaded. Prints "ok"; anything else is in standard error.
#include <dlfcn.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "c_api/qwen3_engine.h"

namespace {

#define CHECK(condition)                                                   \
  do {                                                                     \
    if (!(condition)) {                                                    \
      std::fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
      std::_Exit(1);                                                       \
    }                                                                      \
  } while (0)

constexpr size_t kMaxModelLen = 96, kMaxSeqs = 3, kMaxTokens = 48, kBlocks = 9;
using Logits = std::vector<float>;

class Library {
 public:
  explicit Library(const char* path) : handle_(dlopen(path, RTLD_NOW | RTLD_LOCAL)) {
    if (handle_ == nullptr) std::fprintf(stderr, "%s\n", dlerror());
    CHECK(handle_ != nullptr);
    find(create, "qwen3_engine_create");
    find(destroy, "qwen3_engine_destroy");
    find(vocab_size, "qwen3_engine_vocab_size");
    find(num_cache_groups, "qwen3_engine_num_cache_groups");
    find(get_cache_group, "qwen3_engine_get_cache_group");
    find(forward, "qwen3_engine_forward");
    find(last_error, "qwen3_engine_last_error");
  }
  ~Library() { dlclose(handle_); }
  Library(const Library&) = delete;
  Library& operator=(const Library&) = delete;

  decltype(&qwen3_engine_create) create;
  decltype(&qwen3_engine_destroy) destroy;
  decltype(&qwen3_engine_vocab_size) vocab_size;
  decltype(&qwen3_engine_num_cache_groups) num_cache_groups;
  decltype(&qwen3_engine_get_cache_group) get_cache_group;
  decltype(&qwen3_engine_forward) forward;
  decltype(&qwen3_engine_last_error) last_error;

 private:
  template <class Function>
  void find(Function& function, const char* name) {
    function = reinterpret_cast<Function>(dlsym(handle_, name));
    CHECK(function != nullptr);
  }

  void* handle_;
};

// Gives weights of any shape: small numbers that name, layer and place decide.
struct Weights {
  std::vector<float> memory;
  int given = 0;
  int stop_after = -1;  // then a weight is missing

  static const void* read(void* context, const char* name, int layer, size_t num_bytes) {
    auto& self = *static_cast<Weights*>(context);
    if (self.given++ == self.stop_after) return nullptr;
    uint32_t state = static_cast<uint32_t>(layer + 2);
    for (const char* at = name; *at != '\0'; ++at) {
      state = state * 31 + static_cast<unsigned char>(*at);
    }
    // Exactly as long as asked for, so that a read beyond it is seen.
    self.memory = std::vector<float>(num_bytes / sizeof(float));
    for (float& value : self.memory) {
      state = state * 1664525 + 1013904223;
      value = static_cast<float>(state >> 8) / (1 << 24) - 0.45f;
    }
    return self.memory.data();
  }
};

class Engine {
 public:
  explicit Engine(const Library& library) : library_(library) {
    Weights weights;
    const qwen3_engine_options options = {kMaxModelLen, kMaxSeqs,       kMaxTokens, 0,
                                          kBlocks,      &Weights::read, &weights};
    const qwen3_status status = library.create(&options, &engine_);
    if (status != QWEN3_OK) std::fprintf(stderr, "%s\n", library.last_error());
    CHECK(status == QWEN3_OK);
    for (size_t group = 0; group < library.num_cache_groups(engine_); ++group) {
      qwen3_cache_group found;
      CHECK(library.get_cache_group(engine_, group, &found) == QWEN3_OK);
      groups_.push_back(found);
    }
  }
  ~Engine() { library_.destroy(engine_); }
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  size_t vocab_size() const { return library_.vocab_size(engine_); }
  const std::vector<qwen3_cache_group>& groups() const { return groups_; }
  const char* last_error() const { return library_.last_error(); }

  qwen3_status forward(const qwen3_batch& batch, Logits* logits) const {
    // Exactly as large as promised, for the same reason.
    *logits = Logits(batch.num_logit_rows * vocab_size());
    return library_.forward(engine_, &batch, logits->data(), logits->size());
  }

 private:
  const Library& library_;
  qwen3_engine* engine_ = nullptr;
  std::vector<qwen3_cache_group> groups_;
};

// One step whose arrays are its own, each no longer than it must be.
struct Step {
  std::vector<int32_t> token_ids, positions, query_lens, seq_lens, logit_rows, slots, block_table;
  size_t max_blocks = 0;
  size_t num_places = 0;  // 0: as many as there are cache groups

  // Appends `count` new tokens of a sequence that has `start` already.
  Step& add(int32_t slot, int32_t start, int32_t count, const std::vector<int32_t>& blocks) {
    for (int32_t i = 0; i < count; ++i) {
      token_ids.push_back((slot * 57 + (start + i) * 29 + 5) % 331);
      positions.push_back(start + i);
    }
    query_lens.push_back(count);
    seq_lens.push_back(start + count);
    logit_rows.push_back(static_cast<int32_t>(token_ids.size()) - 1);
    slots.push_back(slot);
    max_blocks = blocks.size();
    block_table.insert(block_table.end(), blocks.begin(), blocks.end());
    return *this;
  }

  qwen3_status run(const Engine& engine, Logits* logits) const {
    std::vector<qwen3_cache_places> places;
    for (const qwen3_cache_group& group : engine.groups()) {
      const bool paged = group.kind == QWEN3_CACHE_PAGED;
      places.push_back({paged ? nullptr : slots.data(), paged ? block_table.data() : nullptr,
                        paged ? max_blocks : 0});
    }
    if (num_places != 0) places.resize(num_places);
    const qwen3_batch batch = {
        token_ids.data(),  positions.data(),  token_ids.size(),  query_lens.data(), seq_lens.data(),
        query_lens.size(), logit_rows.data(), logit_rows.size(), places.data(),     places.size()};
    return engine.forward(batch, logits);
  }
};

void append(Logits* all, const Step& step, const Engine& engine) {
  Logits logits;
  const qwen3_status status = step.run(engine, &logits);
  if (status != QWEN3_OK) std::fprintf(stderr, "%s\n", engine.last_error());
  CHECK(status == QWEN3_OK);
  for (float value : logits) CHECK(std::isfinite(value));
  all->insert(all->end(), logits.begin(), logits.end());
}

// A prefill of two sequences; a decode beside a chunk; a third that shares the first block; decodes
// across the end of a block.
Logits conversation(const Engine& engine) {
  Logits all;
  append(&all, Step().add(0, 0, 33, {4, 1}).add(1, 0, 9, {7, 2}), engine);
  append(&all, Step().add(0, 33, 1, {4, 1}).add(1, 9, 30, {7, 2}), engine);
  const bool paged = engine.groups()[0].kind == QWEN3_CACHE_PAGED;
  append(&all, Step().add(2, paged ? 32 : 0, 5, {4, 0}), engine);
  for (int32_t step = 0; step < 3; ++step) {
    append(&all,
           Step()
               .add(0, 34 + step, 1, {4, 1, 3})
               .add(1, 39 + step, 1, {7, 2, 6})
               .add(2, (paged ? 37 : 5) + step, 1, {4, 0, 5}),
           engine);
  }
  append(&all, Step().add(1, 42, 40, {7, 2, 6}), engine);
  return all;
}

void check_refusals(const Engine& engine) {
  const Step good = Step().add(0, 0, 3, {1}).add(1, 0, 2, {2});
  const bool paged = engine.groups()[0].kind == QWEN3_CACHE_PAGED;
  using Spoil = std::function<void(Step&)>;
  std::vector<Spoil> spoils = {
      [](Step& step) { step.token_ids[4] = 331; },
      [](Step& step) { step.token_ids[0] = -1; },
      [](Step& step) { step.token_ids[1] = INT32_MAX; },
      [](Step& step) { step.positions[2] = 1; },
      [](Step& step) { step.positions[0] = INT32_MIN; },
      [](Step& step) { step.query_lens[0] = 0; },
      [](Step& step) { step.query_lens[1] = INT32_MAX; },
      [](Step& step) { step.query_lens[1] = -1; },
      [](Step& step) { step.query_lens[0] = 4; },
      [](Step& step) { step.seq_lens[0] = 2; },
      [](Step& step) { step.seq_lens[1] = INT32_MAX; },
      [](Step& step) { step.seq_lens[1] = INT32_MIN; },
      [](Step& step) { step.logit_rows[1] = 5; },
      [](Step& step) { step.logit_rows[0] = -1; },
      [](Step& step) { step.logit_rows[0] = step.logit_rows[1]; },
      [](Step& step) { step.num_places = 1; },
      [](Step& step) { step = Step(); },
      [](Step& step) { step = Step().add(0, 0, kMaxTokens + 1, {1, 2}); },
      [](Step& step) { step = Step().add(0, kMaxModelLen, 1, {0, 1, 2, 3}); },
      [](Step& step) {
        for (int32_t slot = 0; slot <= static_cast<int32_t>(kMaxSeqs); ++slot) {
          step = step.add(slot, 0, 1, {slot});
        }
      },
  };
  const std::vector<Spoil> of_slots = {
      [](Step& step) { step.slots[1] = step.slots[0]; },
      [](Step& step) { step.slots[0] = -1; },
      [](Step& step) { step.slots[1] = kMaxSeqs; },
  };
  const std::vector<Spoil> of_blocks = {
      [](Step& step) { step.block_table[0] = kBlocks; },
      [](Step& step) { step.block_table[1] = -1; },
      [](Step& step) { step.block_table[1] = INT32_MAX; },
      [](Step& step) { step.block_table[1] = step.block_table[0]; },
      [](Step& step) { step = Step().add(0, 0, 33, {1}); },
  };
  const std::vector<Spoil>& own = paged ? of_blocks : of_slots;
  spoils.insert(spoils.end(), own.begin(), own.end());
  Logits logits;
  for (size_t i = 0; i < spoils.size(); ++i) {
    Step bad = good;
    spoils[i](bad);
    if (bad.run(engine, &logits) == QWEN3_OK) std::fprintf(stderr, "bad batch %zu\n", i);
    CHECK(bad.run(engine, &logits) != QWEN3_OK);
    CHECK(engine.last_error()[0] != '\0');
  }
  CHECK(good.run(engine, &logits) == QWEN3_OK);
}

void check_missing_weights(const Library& library) {
  for (int stop_after : {0, 1, 9, 20}) {
    Weights weights;
    weights.stop_after = stop_after;
    const qwen3_engine_options options = {kMaxModelLen, kMaxSeqs,       kMaxTokens, 0,
                                          kBlocks,      &Weights::read, &weights};
    qwen3_engine* engine = nullptr;
    CHECK(library.create(&options, &engine) == QWEN3_FAILED && engine == nullptr);
    CHECK(std::strstr(library.last_error(), "was not given") != nullptr);
  }
}

// Two engines of a library, each called by threads of its own, say what one says alone; one more is
// made and destroyed meanwhile.
void call_from_threads(const std::vector<const Library*>& libraries) {
  std::vector<std::thread> threads;
  for (const Library* library : libraries) {
    const Logits expected = conversation(Engine(*library));
    for (int copy = 0; copy < 2; ++copy) {
      threads.emplace_back([library, expected] {
        const Engine engine(*library);
        for (int round = 0; round < 2; ++round) CHECK(conversation(engine) == expected);
        // Callers of one engine wait for each other; a slot each keeps them apart.
        std::vector<std::thread> callers;
        for (int32_t slot = 0; slot < 2; ++slot) {
          callers.emplace_back([&engine, slot] {
            Logits logits;
            for (int32_t start = 0; start < 6; ++start) {
              CHECK(Step().add(slot, start, 1, {slot}).run(engine, &logits) == QWEN3_OK);
              Step bad = Step().add(slot, start, 1, {slot});
              bad.token_ids[0] = -1 - slot;
              CHECK(bad.run(engine, &logits) == QWEN3_FAILED);
              const std::string token = "token id " + std::to_string(-1 - slot) + " ";
              CHECK(std::strstr(engine.last_error(), token.c_str()) != nullptr);
            }
          });
        }
        for (std::thread& caller : callers) caller.join();
      });
    }
    threads.emplace_back([library] { Engine again(*library); });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace

int main(int argc, char** argv) {
  for (int round = 0; round < 2; ++round) {
    std::vector<Library*> loaded;
    std::vector<const Library*> libraries;
    for (int i = 1; i < argc; ++i) loaded.push_back(new Library(argv[i]));
    for (const Library* library : loaded) libraries.push_back(library);
    if (round == 0) {
      for (const Library* library : libraries) {
        check_missing_weights(*library);
        check_refusals(Engine(*library));
      }
    }
    call_from_threads(libraries);
    for (Library* library : loaded) delete library;
  }
  std::puts("ok");
  return 0;
}
