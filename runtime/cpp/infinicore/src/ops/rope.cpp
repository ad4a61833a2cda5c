#include "rope.hpp"

#include "dispatch.hpp"
#include "infiniop/ops/rope.h"
#include "operator.hpp"
#include "parallel.hpp"

using namespace qwen3::infinicore;
namespace kernels = qwen3::kernels;

namespace {

// Release 2025-08 has no algorithm argument: it rotates interleaved pairs.
#if QWEN3_RELEASE_2025_08
#define QWEN3_ROPE_ALGO_PARAMETER
#else
#define QWEN3_ROPE_ALGO_PARAMETER , infiniopRoPEAlgo_t algo
#endif

// Strides of one of x and y, [batch, seq, heads, head_dim].
struct HeadStrides {
  std::ptrdiff_t batch = 0;
  std::ptrdiff_t token;
  std::ptrdiff_t head;

  explicit HeadStrides(const Tensor& tensor) {
    const std::size_t r = tensor.rank();
    batch = r == 4 ? tensor.strides[0] : 0;
    token = tensor.strides[r - 3];
    head = tensor.strides[r - 2];
  }

  std::ptrdiff_t offset(std::size_t b, std::size_t t, std::size_t h) const {
    return static_cast<std::ptrdiff_t>(b) * batch + static_cast<std::ptrdiff_t>(t) * token +
           static_cast<std::ptrdiff_t>(h) * head;
  }
};

struct RopeDescriptor : InfiniopDescriptor {
  RopeDescriptor(const Tensor& y_desc, const Tensor& x_desc) : y(y_desc), x(x_desc) {}

  HeadStrides y;
  HeadStrides x;
  infiniDtype_t dtype;
  infiniDtype_t position_dtype;
  std::size_t batch;
  std::size_t tokens;
  std::size_t heads;
  std::size_t table_length;
  std::size_t pairs;
  bool positions_per_batch;
  kernels::RopePairs layout;
};

infiniStatus_t check_shapes(const Operands& operands) {
  const Tensor& y = operands[0];
  const Tensor& positions = operands[2];
  const Tensor& sine = operands[3];
  QWEN3_TRY(operands.check_same_shape(0, 1));
  QWEN3_TRY(operands.check_same_shape(3, 4));
  const std::size_t rank = y.rank();
  const bool batched = positions.rank() == 2;
  if (positions.shape.back() != y.shape[rank - 3] ||
      (batched && positions.shape[0] != (rank == 4 ? y.shape[0] : 1))) {
    return operands.refuse(INFINI_STATUS_BAD_TENSOR_SHAPE, "pos_ids do not fit y");
  }
  if (y.shape[rank - 1] != 2 * sine.shape[1]) {
    return operands.refuse(INFINI_STATUS_BAD_TENSOR_SHAPE, "heads of %zu, tables of %zu",
                           y.shape[rank - 1], sine.shape[1]);
  }
  return kSuccess;
}

// Checks that every position has a row in the tables.
infiniStatus_t check_positions(const RopeDescriptor& own,
                               const std::vector<std::int64_t>& positions) {
  for (const std::int64_t position : positions) {
    if (position < 0 || position >= static_cast<std::int64_t>(own.table_length)) {
      return fail(INFINI_STATUS_BAD_PARAM, "rope: position %lld of %zu",
                  static_cast<long long>(position), own.table_length);
    }
  }
  return kSuccess;
}

template <typename T>
void rotate_all(const RopeDescriptor& own, const std::vector<std::int64_t>& positions,
                const std::array<void*, 5>& data) {
  constexpr std::size_t kThreadElements = 8192;
  auto* y = static_cast<T*>(data[0]);
  const auto* x = static_cast<const T*>(data[1]);
  const auto* sine = static_cast<const T*>(data[3]);
  const auto* cosine = static_cast<const T*>(data[4]);
  const std::size_t grain = kThreadElements / (own.heads * own.pairs * 2 + 1) + 1;
  kernels::parallel_for(own.batch * own.tokens, grain, [&](std::size_t begin, std::size_t end) {
    for (std::size_t i = begin; i < end; ++i) {
      const std::size_t b = i / own.tokens;
      const std::size_t t = i % own.tokens;
      const auto row = static_cast<std::size_t>(positions[own.positions_per_batch ? i : t]);
      const std::size_t entry = row * own.pairs;
      for (std::size_t h = 0; h < own.heads; ++h) {
        kernels::rope_head(y + own.y.offset(b, t, h), x + own.x.offset(b, t, h), sine + entry,
                           cosine + entry, own.pairs, own.layout);
      }
    }
  });
}

}  // namespace

infiniStatus_t infiniopCreateRoPEDescriptor(
    infiniopHandle_t handle, infiniopRoPEDescriptor_t* desc_ptr, infiniopTensorDescriptor_t y,
    infiniopTensorDescriptor_t x, infiniopTensorDescriptor_t pos_ids,
    infiniopTensorDescriptor_t sin_table,
    infiniopTensorDescriptor_t cos_table QWEN3_ROPE_ALGO_PARAMETER) {
  return guarded([&]() -> infiniStatus_t {
    Operands operands(handle, kRoPERules, {y, x, pos_ids, sin_table, cos_table});
    QWEN3_TRY(operands.check());
    kernels::RopePairs layout = kernels::RopePairs::kInterleaved;
#if !QWEN3_RELEASE_2025_08
    if (algo != INFINIOP_ROPE_ALGO_GPT_J && algo != INFINIOP_ROPE_ALGO_GPT_NEOX) {
      return operands.refuse(INFINI_STATUS_NULL_POINTER, "algorithm %d", static_cast<int>(algo));
    }
    if (algo == INFINIOP_ROPE_ALGO_GPT_NEOX) {
      layout = kernels::RopePairs::kHalves;
    }
#endif
    QWEN3_TRY(check_shapes(operands));
    QWEN3_TRY(operands.check_strides());
    auto descriptor = std::make_unique<RopeDescriptor>(*y, *x);
    const std::size_t rank = y->rank();
    descriptor->dtype = y->dtype;
    descriptor->position_dtype = pos_ids->dtype;
    descriptor->batch = rank == 4 ? y->shape[0] : 1;
    descriptor->tokens = y->shape[rank - 3];
    descriptor->heads = y->shape[rank - 2];
    descriptor->table_length = sin_table->shape[0];
    descriptor->pairs = sin_table->shape[1];
    descriptor->positions_per_batch = pos_ids->rank() == 2;
    descriptor->layout = layout;
    return finish_create(operands, operands.in_order(), std::move(descriptor), desc_ptr);
  });
}

infiniStatus_t infiniopGetRoPEWorkspaceSize(infiniopRoPEDescriptor_t desc, size_t* size) {
  return workspace_size_of(kRoPERules, desc, size);
}

infiniStatus_t infiniopRoPE(infiniopRoPEDescriptor_t desc, void* workspace, size_t workspace_size,
                            void* y, const void* x, const void* pos_ids, const void* sin_table,
                            const void* cos_table, void* stream) {
  return run<RopeDescriptor, 5>(
      kRoPERules, desc, {workspace, workspace_size}, stream, {y, x, pos_ids, sin_table, cos_table},
      [](const RopeDescriptor& own, const std::array<void*, 5>& data) -> infiniStatus_t {
        const std::size_t count = own.tokens * (own.positions_per_batch ? own.batch : 1);
        const auto positions = read_integers(own.position_dtype, data[2], count);
        QWEN3_TRY(check_positions(own, positions));
        with_real_type(own.dtype,
                       [&](auto tag) { rotate_all<TypeOf<decltype(tag)>>(own, positions, data); });
        return kSuccess;
      });
}

infiniStatus_t infiniopDestroyRoPEDescriptor(infiniopRoPEDescriptor_t desc) {
  return destroy(kRoPERules, desc);
}
