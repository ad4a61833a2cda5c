#include "qwen3_api_table.hpp"

#ifdef QWEN3_OP_TOPKSOFTMAX

#include <algorithm>
#include <numeric>

#include "dispatch.hpp"
#include "infiniop/ops/topksoftmax.h"
#include "operator.hpp"
#include "softmax.hpp"

using namespace qwen3::infinicore;
namespace kernels = qwen3::kernels;

namespace {

struct TopkSoftmaxDescriptor : InfiniopDescriptor {
  infiniDtype_t dtype;
  std::size_t rows;
  std::size_t experts;
};

// The topk largest probabilities of a row, the lower index first among equals.
template <typename T>
void route(const T* x, std::size_t experts, std::size_t topk, bool normalise, float* values,
           std::int32_t* indices) {
  std::vector<float> scores(experts);
  for (std::size_t i = 0; i < experts; ++i) {
    scores[i] = kernels::to_float(x[i]);
  }
  kernels::softmax_row(scores.data(), 1, scores.data(), 1, experts, experts);
  std::vector<std::int32_t> order(experts);
  std::iota(order.begin(), order.end(), 0);
  const auto at = [&](std::int32_t i) { return scores[static_cast<std::size_t>(i)]; };
  std::partial_sort(
      order.begin(), order.begin() + static_cast<std::ptrdiff_t>(topk), order.end(),
      [&](std::int32_t a, std::int32_t b) { return at(a) != at(b) ? at(a) > at(b) : a < b; });
  float total = 0.0f;
  for (std::size_t i = 0; i < topk; ++i) {
    indices[i] = order[i];
    values[i] = at(order[i]);
    total += values[i];
  }
  for (std::size_t i = 0; normalise && i < topk; ++i) {
    values[i] /= total;
  }
}

}  // namespace

infiniStatus_t infiniopCreateTopksoftmaxDescriptor(infiniopHandle_t handle,
                                                   infiniopTopksoftmaxDescriptor_t* desc_ptr,
                                                   infiniopTensorDescriptor_t x) {
  return guarded([&]() -> infiniStatus_t {
    Operands operands(handle, kTopksoftmaxRules, {x});
    QWEN3_TRY(operands.check());
    QWEN3_TRY(operands.check_strides());
    auto descriptor = std::make_unique<TopkSoftmaxDescriptor>();
    descriptor->dtype = x->dtype;
    descriptor->rows = x->shape[0];
    descriptor->experts = x->shape[1];
    return finish_create(operands, {0}, std::move(descriptor), desc_ptr);
  });
}

infiniStatus_t infiniopGetTopksoftmaxWorkspaceSize(infiniopTopksoftmaxDescriptor_t desc,
                                                   size_t* size) {
  return workspace_size_of(kTopksoftmaxRules, desc, size);
}

infiniStatus_t infiniopTopksoftmax(infiniopTopksoftmaxDescriptor_t desc, void* workspace,
                                   size_t workspace_size, void* values, void* indices,
                                   const void* x, size_t topk, int norm, void* stream) {
  return run<TopkSoftmaxDescriptor, 1>(
      kTopksoftmaxRules, desc, {workspace, workspace_size}, stream, {x},
      [&](const TopkSoftmaxDescriptor& own, const std::array<void*, 1>& data) -> infiniStatus_t {
        if (topk == 0 || topk > own.experts) {
          return fail(INFINI_STATUS_BAD_PARAM, "topksoftmax: %zu of %zu experts", topk,
                      own.experts);
        }
        // The outputs have no descriptors: their size follows from topk.
        const Extent extent{0, static_cast<std::ptrdiff_t>(own.rows * topk * sizeof(float))};
        void* chosen = nullptr;
        void* weights = nullptr;
        QWEN3_TRY(resolve(own.device, values, extent, "topksoftmax", &weights));
        QWEN3_TRY(resolve(own.device, indices, extent, "topksoftmax", &chosen));
        with_float_type(own.dtype, [&](auto tag) {
          using T = TypeOf<decltype(tag)>;
          for (std::size_t row = 0; row < own.rows; ++row) {
            route(static_cast<const T*>(data[0]) + row * own.experts, own.experts, topk, norm != 0,
                  static_cast<float*>(weights) + row * topk,
                  static_cast<std::int32_t*>(chosen) + row * topk);
          }
        });
        return kSuccess;
      });
}

infiniStatus_t infiniopDestroyTopksoftmaxDescriptor(infiniopTopksoftmaxDescriptor_t desc) {
  return destroy(kTopksoftmaxRules, desc);
}

#endif  // QWEN3_OP_TOPKSOFTMAX
