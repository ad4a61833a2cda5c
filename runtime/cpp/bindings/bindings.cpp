#include "bindings/bindings.hpp"

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "engine/check.hpp"
#include "engine/engine.hpp"
#include "engine/trace.hpp"
#include "sampler/sampler.hpp"

namespace py = pybind11;

namespace qwen3 {
namespace {

using Int32Array = py::array_t<int32_t, py::array::c_style>;

// Asks a Python callable `read(name, layer)` for each weight; layer is None outside the layers.
class PythonWeightSource final : public WeightSource {
 public:
  PythonWeightSource(const py::object& read, std::vector<py::array>& kept)
      : read_(read), kept_(kept) {}

  void with_weight(const std::string& name, std::optional<size_t> layer, size_t num_bytes,
                   void (*use)(void* context, const void* host), void* context) override {
    py::gil_scoped_acquire gil;
    use(context, array(name, layer, num_bytes).data());
  }

  const void* adopt(const std::string& name, std::optional<size_t> layer,
                    size_t num_bytes) override {
    py::gil_scoped_acquire gil;
    return kept_.emplace_back(array(name, layer, num_bytes)).data();
  }

 private:
  py::array array(const std::string& name, std::optional<size_t> layer, size_t num_bytes) const {
    py::array given = py::array::ensure(read_(name, layer), py::array::c_style);
    require_else(given && static_cast<size_t>(given.nbytes()) == num_bytes, [&] {
      return "weight " + name + ": the engine needs " + std::to_string(num_bytes) +
             " bytes, the weight source gave another amount";
    });
    return given;
  }

  const py::object& read_;
  std::vector<py::array>& kept_;
};

Int32Span span(const Int32Array& array) {
  return {array.data(), static_cast<size_t>(array.size())};
}

using PythonPlaces = std::vector<std::pair<py::object, py::object>>;

// An engine with its lock: steps of one engine follow each other, whichever thread asks.
class EngineHandle {
 public:
  EngineHandle(EngineFactory factory, const EngineOptions& options, const py::object& read_weight) {
    PythonWeightSource source(read_weight, weights_);
    py::gil_scoped_release release;
    engine_ = factory(options);
    engine_->load_weights(source);
  }

  py::array_t<float> forward(const Int32Array& token_ids, const Int32Array& positions,
                             const Int32Array& query_lens, const Int32Array& seq_lens,
                             const Int32Array& logit_rows, const PythonPlaces& places) {
    return run(token_ids, positions, query_lens, seq_lens, logit_rows, places, nullptr);
  }

  // The values of a step by name, in order; `names` chooses some, none of them all.
  py::dict trace(const Int32Array& token_ids, const Int32Array& positions,
                 const Int32Array& query_lens, const Int32Array& seq_lens,
                 const Int32Array& logit_rows, const PythonPlaces& places,
                 std::set<std::string> names) {
    Trace trace(std::move(names));
    run(token_ids, positions, query_lens, seq_lens, logit_rows, places, &trace);
    py::dict arrays;
    for (TracedValue& value : trace.values()) {
      arrays[py::str(value.name)] = py::array_t<float>(value.shape, value.elements.data());
      std::vector<float>().swap(value.elements);
    }
    return arrays;
  }

  const Engine& engine() const { return *engine_; }

 private:
  py::array_t<float> run(const Int32Array& token_ids, const Int32Array& positions,
                         const Int32Array& query_lens, const Int32Array& seq_lens,
                         const Int32Array& logit_rows, const PythonPlaces& places, Trace* trace) {
    Batch batch{span(token_ids), span(positions),  span(query_lens),
                span(seq_lens),  span(logit_rows), {}};
    std::vector<Int32Array> kept;  // keeps converted arrays alive during the step
    kept.reserve(2 * places.size());
    for (const auto& [slots, block_table] : places) {
      CachePlaces group;
      if (!slots.is_none()) group.slots = span(kept.emplace_back(slots.cast<Int32Array>()));
      if (!block_table.is_none()) {
        const Int32Array& table = kept.emplace_back(block_table.cast<Int32Array>());
        group.block_table = span(table);
        group.max_blocks = table.ndim() == 2 ? static_cast<size_t>(table.shape(1)) : 0;
      }
      batch.places.push_back(group);
    }
    py::array_t<float> logits({logit_rows.size(), static_cast<py::ssize_t>(engine_->vocab_size())});
    float* rows = logits.mutable_data();
    py::gil_scoped_release release;
    const std::lock_guard<std::mutex> lock(mutex_);
    engine_->trace_to(trace);
    engine_->forward(batch, rows);
    return logits;
  }

  std::mutex mutex_;
  std::vector<py::array> weights_;  // those the engine reads where they are
  std::unique_ptr<Engine> engine_;
};

// One row's parameters per entry of each array; see sampler.hpp.
py::array_t<int32_t> sample_rows(const py::array_t<float, py::array::c_style>& logits,
                                 const py::array_t<double>& temperature,
                                 const py::array_t<double>& top_p,
                                 const py::array_t<int64_t>& top_k,
                                 const py::array_t<uint64_t>& seed,
                                 const py::array_t<uint64_t>& position) {
  require(logits.ndim() == 2, "logits must be [num_rows, vocab_size]");
  const py::ssize_t count = logits.shape(0);
  for (py::ssize_t size :
       {temperature.size(), top_p.size(), top_k.size(), seed.size(), position.size()}) {
    require(size == count, "every row of logits needs its own sampling parameters");
  }
  std::vector<SamplingRow> rows;
  for (py::ssize_t i = 0; i < count; ++i) {
    rows.push_back({temperature.at(i), top_p.at(i), top_k.at(i), seed.at(i), position.at(i)});
  }
  py::array_t<int32_t> tokens(count);
  const float* values = logits.data();
  int32_t* chosen = tokens.mutable_data();
  const auto vocab_size = static_cast<size_t>(logits.shape(1));
  py::gil_scoped_release release;
  Sampler().sample(values, rows.size(), vocab_size, rows.data(), chosen);
  return tokens;
}

const char* kind_name(CacheKind kind) {
  switch (kind) {
    case CacheKind::kContiguous:
      return "contiguous";
    case CacheKind::kPaged:
      return "paged";
    case CacheKind::kRecurrent:
      return "recurrent";
  }
  return "unknown";
}

py::list cache_groups(const EngineHandle& handle) {
  py::list groups;
  for (const CacheGroup& group : handle.engine().cache_groups()) {
    py::dict entry;
    entry["name"] = group.name;
    entry["kind"] = kind_name(group.kind);
    entry["layers"] = group.layers;
    entry["num_key_value_heads"] = group.num_key_value_heads;
    entry["head_dim"] = group.head_dim;
    entry["window"] =
        group.window > 0 ? py::object(py::int_(group.window)) : py::object(py::none());
    entry["block_size"] = group.block_size;
    groups.append(entry);
  }
  return groups;
}

// EngineFailure becomes qwen3_runtime.errors.EngineError, which users of the runtime catch.
void translate_failures() {
  py::register_local_exception_translator([](std::exception_ptr pointer) {
    try {
      if (pointer) std::rethrow_exception(pointer);
    } catch (const SamplingError& failure) {
      const py::object type = py::module_::import("qwen3_runtime.errors").attr("EngineError");
      py::set_error(type, failure.what());
    } catch (const EngineFailure& failure) {
      const py::object type = py::module_::import("qwen3_runtime.errors").attr("EngineError");
      py::set_error(type, failure.what());
    }
  });
}

void define(py::module_& module, EngineFactory factory) {
  translate_failures();
  py::class_<EngineHandle>(module, "Engine", py::module_local())
      .def(py::init([factory](const py::object& read_weight, size_t max_model_len,
                              size_t max_num_seqs, size_t max_num_batched_tokens, int device_id,
                              size_t num_blocks) {
             const EngineOptions options{max_model_len, max_num_seqs, max_num_batched_tokens,
                                         device_id, num_blocks};
             return std::make_unique<EngineHandle>(factory, options, read_weight);
           }),
           py::kw_only(), py::arg("read_weight"), py::arg("max_model_len"), py::arg("max_num_seqs"),
           py::arg("max_num_batched_tokens"), py::arg("device_id") = 0, py::arg("num_blocks") = 0)
      .def("forward", &EngineHandle::forward, py::arg("token_ids"), py::arg("positions"),
           py::arg("query_lens"), py::arg("seq_lens"), py::arg("logit_rows"), py::arg("places"))
      .def("trace", &EngineHandle::trace, py::arg("token_ids"), py::arg("positions"),
           py::arg("query_lens"), py::arg("seq_lens"), py::arg("logit_rows"), py::arg("places"),
           py::arg("names"))
      .def_static("sample_rows", &sample_rows)
      .def_property_readonly("vocab_size",
                             [](const EngineHandle& h) { return h.engine().vocab_size(); })
      .def_property_readonly("cache_groups", &cache_groups);
}

}  // namespace

_object* init_engine_module(const char* name, EngineFactory factory) {
  static PyModuleDef definition;  // one per engine: this library is linked statically and hidden
  try {
    auto module = py::module_::create_extension_module(name, nullptr, &definition);
    define(module, factory);
    return module.release().ptr();
  } catch (py::error_already_set& error) {
    error.restore();
  } catch (const std::exception& error) {
    PyErr_SetString(PyExc_ImportError, error.what());
  }
  return nullptr;
}

}  // namespace qwen3
