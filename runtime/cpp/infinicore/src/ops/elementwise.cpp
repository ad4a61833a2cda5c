// add, sub, mul, swiglu, relu and, by release, silu, sigmoid, mul_scalar.

#include "elementwise.hpp"

#include "dispatch.hpp"
#include "infiniop/ops/add.h"
#include "infiniop/ops/mul.h"
#include "infiniop/ops/relu.h"
#include "infiniop/ops/sub.h"
#include "infiniop/ops/swiglu.h"
#include "operator.hpp"
#include "qwen3_api_table.hpp"

#ifdef QWEN3_OP_SILU
#include "infiniop/ops/silu.h"
#endif
#ifdef QWEN3_OP_SIGMOID
#include "infiniop/ops/sigmoid.h"
#endif
#ifdef QWEN3_OP_MUL_SCALAR
#include "infiniop/ops/mul_scalar.h"
#endif

using namespace qwen3::infinicore;
namespace kernels = qwen3::kernels;

namespace {

// `Count` tensors, the output first.
template <std::size_t Count>
struct ElementwiseDescriptor : InfiniopDescriptor {
  infiniDtype_t dtype;
  kernels::StridedLoop<Count> loop;
};

template <std::size_t Count>
infiniStatus_t create(infiniopHandle_t handle, const OperatorRules& rules, InfiniopDescriptor** out,
                      const std::array<infiniopTensorDescriptor_t, Count>& tensors) {
  return guarded([&]() -> infiniStatus_t {
    Operands operands(handle, rules, {tensors.begin(), tensors.end()});
    QWEN3_TRY(operands.check());
    auto descriptor = std::make_unique<ElementwiseDescriptor<Count>>();
    std::array<std::vector<std::ptrdiff_t>, Count> strides;
    for (std::size_t i = 0; i < Count; ++i) {
      QWEN3_TRY(operands.check_same_shape(0, i));
      strides[i] = tensors[i]->strides;
    }
    QWEN3_TRY(operands.check_strides());
    descriptor->dtype = tensors[0]->dtype;
    descriptor->loop = {tensors[0]->shape, strides};
    return finish_create(operands, operands.in_order(), std::move(descriptor), out);
  });
}

template <typename T, typename Function, std::size_t Count>
void apply(const kernels::StridedLoop<Count>& loop, const Function& function,
           const std::array<void*, Count>& data) {
  auto* out = static_cast<T*>(data[0]);
  const auto* first = static_cast<const T*>(data[1]);
  if constexpr (Count == 3) {
    kernels::elementwise(loop, function, out, first, static_cast<const T*>(data[2]));
  } else {
    kernels::elementwise(loop, function, out, first);
  }
}

template <std::size_t Count, typename Function>
infiniStatus_t run_elementwise(const OperatorRules& rules, InfiniopDescriptor* desc,
                               const Workspace& workspace, const void* stream,
                               const std::array<const void*, Count>& data,
                               const Function& function) {
  using Descriptor = ElementwiseDescriptor<Count>;
  return run<Descriptor, Count>(
      rules, desc, workspace, stream, data,
      [&](const Descriptor& own, const std::array<void*, Count>& addresses) {
        if (own.dtype == INFINI_DTYPE_I32 || own.dtype == INFINI_DTYPE_I64) {
          if constexpr (std::is_same_v<Function, kernels::Add>) {  // the one with integers
            with_integer_type(own.dtype, [&](auto tag) {
              apply<TypeOf<decltype(tag)>>(own.loop, function, addresses);
            });
            return kSuccess;
          }
        }
        with_real_type(own.dtype, [&](auto tag) {
          apply<TypeOf<decltype(tag)>>(own.loop, function, addresses);
        });
        return kSuccess;
      });
}

}  // namespace

// The C functions of an operator c = function(a, b).
#define QWEN3_BINARY(Symbol, Function)                                                            \
  infiniStatus_t infiniopCreate##Symbol##Descriptor(                                              \
      infiniopHandle_t handle, infiniop##Symbol##Descriptor_t* desc_ptr,                          \
      infiniopTensorDescriptor_t c, infiniopTensorDescriptor_t a, infiniopTensorDescriptor_t b) { \
    return create<3>(handle, k##Symbol##Rules, desc_ptr, {c, a, b});                              \
  }                                                                                               \
  infiniStatus_t infiniopGet##Symbol##WorkspaceSize(infiniop##Symbol##Descriptor_t desc,          \
                                                    size_t* size) {                               \
    return workspace_size_of(k##Symbol##Rules, desc, size);                                       \
  }                                                                                               \
  infiniStatus_t infiniop##Symbol(infiniop##Symbol##Descriptor_t desc, void* workspace,           \
                                  size_t workspace_size, void* c, const void* a, const void* b,   \
                                  void* stream) {                                                 \
    return run_elementwise<3>(k##Symbol##Rules, desc, {workspace, workspace_size}, stream,        \
                              {c, a, b}, Function{});                                             \
  }                                                                                               \
  infiniStatus_t infiniopDestroy##Symbol##Descriptor(infiniop##Symbol##Descriptor_t desc) {       \
    return destroy(k##Symbol##Rules, desc);                                                       \
  }

// The C functions of an operator y = function(x).
#define QWEN3_UNARY(Symbol, Function)                                                              \
  infiniStatus_t infiniopCreate##Symbol##Descriptor(                                               \
      infiniopHandle_t handle, infiniop##Symbol##Descriptor_t* desc_ptr,                           \
      infiniopTensorDescriptor_t y, infiniopTensorDescriptor_t x) {                                \
    return create<2>(handle, k##Symbol##Rules, desc_ptr, {y, x});                                  \
  }                                                                                                \
  infiniStatus_t infiniopGet##Symbol##WorkspaceSize(infiniop##Symbol##Descriptor_t desc,           \
                                                    size_t* size) {                                \
    return workspace_size_of(k##Symbol##Rules, desc, size);                                        \
  }                                                                                                \
  infiniStatus_t infiniop##Symbol(infiniop##Symbol##Descriptor_t desc, void* workspace,            \
                                  size_t workspace_size, void* y, const void* x, void* stream) {   \
    return run_elementwise<2>(k##Symbol##Rules, desc, {workspace, workspace_size}, stream, {y, x}, \
                              Function{});                                                         \
  }                                                                                                \
  infiniStatus_t infiniopDestroy##Symbol##Descriptor(infiniop##Symbol##Descriptor_t desc) {        \
    return destroy(k##Symbol##Rules, desc);                                                        \
  }

QWEN3_BINARY(Add, kernels::Add)
QWEN3_BINARY(Sub, kernels::Sub)
QWEN3_BINARY(Mul, kernels::Mul)
QWEN3_BINARY(SwiGLU, kernels::SwiGlu)
QWEN3_UNARY(Relu, kernels::Relu)

#ifdef QWEN3_OP_SILU
QWEN3_UNARY(Silu, kernels::Silu)
#endif

#ifdef QWEN3_OP_SIGMOID
QWEN3_UNARY(Sigmoid, kernels::Sigmoid)
#endif

#ifdef QWEN3_OP_MUL_SCALAR

infiniStatus_t infiniopCreateMulScalarDescriptor(infiniopHandle_t handle,
                                                 infiniopMulScalarDescriptor_t* desc_ptr,
                                                 infiniopTensorDescriptor_t output,
                                                 infiniopTensorDescriptor_t input) {
  return create<2>(handle, kMulScalarRules, desc_ptr, {output, input});
}

infiniStatus_t infiniopGetMulScalarWorkspaceSize(infiniopMulScalarDescriptor_t desc, size_t* size) {
  return workspace_size_of(kMulScalarRules, desc, size);
}

infiniStatus_t infiniopMulScalar(infiniopMulScalarDescriptor_t desc, void* workspace,
                                 size_t workspace_size, void* output, const void* input,
                                 double alpha, void* stream) {
  return run_elementwise<2>(kMulScalarRules, desc, {workspace, workspace_size}, stream,
                            {output, input}, kernels::Scale{alpha});
}

infiniStatus_t infiniopDestroyMulScalarDescriptor(infiniopMulScalarDescriptor_t desc) {
  return destroy(kMulScalarRules, desc);
}

#endif  // QWEN3_OP_MUL_SCALAR
