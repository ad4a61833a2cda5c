#include "infiniop/ops/random_sample.h"

#include <cmath>
#include <limits>

#include "dispatch.hpp"
#include "operator.hpp"
#include "sample.hpp"

using namespace qwen3::infinicore;
namespace kernels = qwen3::kernels;

namespace {

struct RandomSampleDescriptor : InfiniopDescriptor {
  infiniDtype_t result_dtype;
  infiniDtype_t dtype;
  std::size_t size;
};

// The logits as doubles; NaN, which has no order, counts as minus infinity.
template <typename T>
std::vector<double> read_logits(const void* data, std::size_t size) {
  const auto* source = static_cast<const T*>(data);
  std::vector<double> logits(size);
  for (std::size_t i = 0; i < size; ++i) {
    double value = 0.0;
    if constexpr (std::is_same_v<T, double>) {
      value = source[i];
    } else {
      value = static_cast<double>(kernels::to_float(source[i]));
    }
    logits[i] = std::isnan(value) ? -std::numeric_limits<double>::infinity() : value;
  }
  return logits;
}

}  // namespace

infiniStatus_t infiniopCreateRandomSampleDescriptor(infiniopHandle_t handle,
                                                    infiniopRandomSampleDescriptor_t* desc_ptr,
                                                    infiniopTensorDescriptor_t result,
                                                    infiniopTensorDescriptor_t probs) {
  return guarded([&]() -> infiniStatus_t {
    Operands operands(handle, kRandomSampleRules, {result, probs});
    QWEN3_TRY(operands.check());
    if (probs->shape[0] == 0) {
      return operands.refuse(INFINI_STATUS_BAD_TENSOR_SHAPE, "no logits");
    }
    QWEN3_TRY(operands.check_strides());
    auto descriptor = std::make_unique<RandomSampleDescriptor>();
    descriptor->result_dtype = result->dtype;
    descriptor->dtype = probs->dtype;
    descriptor->size = probs->shape[0];
    return finish_create(operands, {0, 1}, std::move(descriptor), desc_ptr);
  });
}

infiniStatus_t infiniopGetRandomSampleWorkspaceSize(infiniopRandomSampleDescriptor_t desc,
                                                    size_t* size) {
  return workspace_size_of(kRandomSampleRules, desc, size);
}

infiniStatus_t infiniopRandomSample(infiniopRandomSampleDescriptor_t desc, void* workspace,
                                    size_t workspace_size, void* result, const void* probs,
                                    float random_val, float topp, int topk, float temperature,
                                    void* stream) {
  return run<RandomSampleDescriptor, 2>(
      kRandomSampleRules, desc, {workspace, workspace_size}, stream, {result, probs},
      [&](const RandomSampleDescriptor& own, const std::array<void*, 2>& data) -> infiniStatus_t {
        const bool greedy = random_val == 0.0f || topp == 0.0f || topk == 1 || temperature == 0.0f;
        if (!greedy && (topk == 0 || !(temperature > 0.0f) || std::isnan(random_val + topp))) {
          return fail(INFINI_STATUS_BAD_PARAM, "random_sample: topk %d, temperature %g", topk,
                      static_cast<double>(temperature));
        }
        const std::vector<double> logits = with_real_type(own.dtype, [&](auto tag) {
          return read_logits<TypeOf<decltype(tag)>>(data[1], own.size);
        });
        const std::size_t limit = topk < 0 ? own.size : static_cast<std::size_t>(topk);
        const std::size_t chosen = greedy ? kernels::argmax(logits)
                                          : kernels::sample(logits, static_cast<double>(random_val),
                                                            static_cast<double>(topp), limit,
                                                            static_cast<double>(temperature));
        with_integer_type(own.result_dtype, [&](auto tag) {
          using Index = TypeOf<decltype(tag)>;
          *static_cast<Index*>(data[0]) = static_cast<Index>(chosen);
        });
        return kSuccess;
      });
}

infiniStatus_t infiniopDestroyRandomSampleDescriptor(infiniopRandomSampleDescriptor_t desc) {
  return destroy(kRandomSampleRules, desc);
}
