// Engine of qwen2-tied (qwen2) for cpu in float32, on InfiniCore 0.1.0.
// Call sites of the InfiniCore operators this engine uses, one method each: outputs first, then
// inputs, then attributes. A descriptor is created once per shape and reused by every layer.
#pragma once

#include <infiniop.h>

#include "engine/check.hpp"
#include "engine/descriptor_cache.hpp"

namespace qwen2_tied_cpu {

class InfiniCoreOps {
  using Tensor = qwen3::Tensor;
  using TensorDescriptor = qwen3::TensorDescriptor;

 public:
  explicit InfiniCoreOps(const qwen3::Device& device)
      : device_(device), descriptors_(device), workspace_(device) {}

  // softmax over the last dimension; row i of S sees columns up to total - S + i, later ones become
  // 0
  void causal_softmax(const Tensor& y, const Tensor& x) {
    const qwen3::DescriptorKey key(0, y, x);
    const qwen3::CachedOperator& cached = descriptors_.find_or_create(key, [&] {
      const TensorDescriptor y_descriptor(y);
      const TensorDescriptor x_descriptor(x);
      infiniopCausalSoftmaxDescriptor_t descriptor = nullptr;
      qwen3::check(infiniopCreateCausalSoftmaxDescriptor(device_.handle(), &descriptor,
                                                         y_descriptor.get(), x_descriptor.get()),
                   "infiniopCreateCausalSoftmaxDescriptor");
      qwen3::CachedOperator created(descriptor, &infiniopDestroyCausalSoftmaxDescriptor);
      qwen3::check(infiniopGetCausalSoftmaxWorkspaceSize(descriptor, &created.workspace_size),
                   "infiniopGetCausalSoftmaxWorkspaceSize");
      return created;
    });
    qwen3::check(infiniopCausalSoftmax(cached.descriptor(),
                                       workspace_.reserve(cached.workspace_size),
                                       cached.workspace_size, y.data, x.data, device_.stream()),
                 "infiniopCausalSoftmax");
  }

  // c = alpha * a @ b + beta * c, batched for rank 3; a weight [N, K] is the [K, N] view with
  // strides {1, K}
  void gemm(const Tensor& c, const Tensor& a, const Tensor& b, float alpha, float beta) {
    const qwen3::DescriptorKey key(1, c, a, b);
    const qwen3::CachedOperator& cached = descriptors_.find_or_create(key, [&] {
      const TensorDescriptor c_descriptor(c);
      const TensorDescriptor a_descriptor(a);
      const TensorDescriptor b_descriptor(b);
      infiniopGemmDescriptor_t descriptor = nullptr;
      qwen3::check(infiniopCreateGemmDescriptor(device_.handle(), &descriptor, c_descriptor.get(),
                                                a_descriptor.get(), b_descriptor.get()),
                   "infiniopCreateGemmDescriptor");
      qwen3::CachedOperator created(descriptor, &infiniopDestroyGemmDescriptor);
      qwen3::check(infiniopGetGemmWorkspaceSize(descriptor, &created.workspace_size),
                   "infiniopGetGemmWorkspaceSize");
      return created;
    });
    qwen3::check(infiniopGemm(cached.descriptor(), workspace_.reserve(cached.workspace_size),
                              cached.workspace_size, c.data, a.data, b.data, alpha, beta,
                              device_.stream()),
                 "infiniopGemm");
  }

  // strided copy; src may repeat (stride 0) or run backwards, dst must not repeat
  void rearrange(const Tensor& dst, const Tensor& src) {
    const qwen3::DescriptorKey key(2, dst, src);
    const qwen3::CachedOperator& cached = descriptors_.find_or_create(key, [&] {
      const TensorDescriptor dst_descriptor(dst);
      const TensorDescriptor src_descriptor(src);
      infiniopRearrangeDescriptor_t descriptor = nullptr;
      qwen3::check(infiniopCreateRearrangeDescriptor(device_.handle(), &descriptor,
                                                     dst_descriptor.get(), src_descriptor.get()),
                   "infiniopCreateRearrangeDescriptor");
      qwen3::CachedOperator created(descriptor, &infiniopDestroyRearrangeDescriptor);
      return created;
    });
    qwen3::check(infiniopRearrange(cached.descriptor(), dst.data, src.data, device_.stream()),
                 "infiniopRearrange");
  }

  // y = x * w / sqrt(mean(x * x) + epsilon) over the last dimension
  void rms_norm(const Tensor& y, const Tensor& x, const Tensor& w, float epsilon) {
    const qwen3::DescriptorKey key(3, y, x, w, epsilon);
    const qwen3::CachedOperator& cached = descriptors_.find_or_create(key, [&] {
      const TensorDescriptor y_descriptor(y);
      const TensorDescriptor x_descriptor(x);
      const TensorDescriptor w_descriptor(w);
      infiniopRMSNormDescriptor_t descriptor = nullptr;
      qwen3::check(infiniopCreateRMSNormDescriptor(device_.handle(), &descriptor,
                                                   y_descriptor.get(), x_descriptor.get(),
                                                   w_descriptor.get(), epsilon),
                   "infiniopCreateRMSNormDescriptor");
      qwen3::CachedOperator created(descriptor, &infiniopDestroyRMSNormDescriptor);
      qwen3::check(infiniopGetRMSNormWorkspaceSize(descriptor, &created.workspace_size),
                   "infiniopGetRMSNormWorkspaceSize");
      return created;
    });
    qwen3::check(infiniopRMSNorm(cached.descriptor(), workspace_.reserve(cached.workspace_size),
                                 cached.workspace_size, y.data, x.data, w.data, device_.stream()),
                 "infiniopRMSNorm");
  }

  // rotary embedding; sin comes before cos; GPT_J rotates elements 2i and 2i+1, GPT_NEOX elements i
  // and i + head_dim/2
  void rope(const Tensor& y, const Tensor& x, const Tensor& pos_ids, const Tensor& sin_table,
            const Tensor& cos_table, infiniopRoPEAlgo_t algo) {
    const qwen3::DescriptorKey key(4, y, x, pos_ids, sin_table, cos_table, static_cast<int>(algo));
    const qwen3::CachedOperator& cached = descriptors_.find_or_create(key, [&] {
      const TensorDescriptor y_descriptor(y);
      const TensorDescriptor x_descriptor(x);
      const TensorDescriptor pos_ids_descriptor(pos_ids);
      const TensorDescriptor sin_table_descriptor(sin_table);
      const TensorDescriptor cos_table_descriptor(cos_table);
      infiniopRoPEDescriptor_t descriptor = nullptr;
      qwen3::check(infiniopCreateRoPEDescriptor(device_.handle(), &descriptor, y_descriptor.get(),
                                                x_descriptor.get(), pos_ids_descriptor.get(),
                                                sin_table_descriptor.get(),
                                                cos_table_descriptor.get(), algo),
                   "infiniopCreateRoPEDescriptor");
      qwen3::CachedOperator created(descriptor, &infiniopDestroyRoPEDescriptor);
      qwen3::check(infiniopGetRoPEWorkspaceSize(descriptor, &created.workspace_size),
                   "infiniopGetRoPEWorkspaceSize");
      return created;
    });
    qwen3::check(infiniopRoPE(cached.descriptor(), workspace_.reserve(cached.workspace_size),
                              cached.workspace_size, y.data, x.data, pos_ids.data, sin_table.data,
                              cos_table.data, device_.stream()),
                 "infiniopRoPE");
  }

  // c = a * silu(b), so a is the up projection and b the gate
  void swiglu(const Tensor& c, const Tensor& a, const Tensor& b) {
    const qwen3::DescriptorKey key(5, c, a, b);
    const qwen3::CachedOperator& cached = descriptors_.find_or_create(key, [&] {
      const TensorDescriptor c_descriptor(c);
      const TensorDescriptor a_descriptor(a);
      const TensorDescriptor b_descriptor(b);
      infiniopSwiGLUDescriptor_t descriptor = nullptr;
      qwen3::check(infiniopCreateSwiGLUDescriptor(device_.handle(), &descriptor, c_descriptor.get(),
                                                  a_descriptor.get(), b_descriptor.get()),
                   "infiniopCreateSwiGLUDescriptor");
      qwen3::CachedOperator created(descriptor, &infiniopDestroySwiGLUDescriptor);
      qwen3::check(infiniopGetSwiGLUWorkspaceSize(descriptor, &created.workspace_size),
                   "infiniopGetSwiGLUWorkspaceSize");
      return created;
    });
    qwen3::check(infiniopSwiGLU(cached.descriptor(), workspace_.reserve(cached.workspace_size),
                                cached.workspace_size, c.data, a.data, b.data, device_.stream()),
                 "infiniopSwiGLU");
  }

 private:
  const qwen3::Device& device_;
  qwen3::DescriptorCache descriptors_;
  qwen3::Workspace workspace_;
};

}  // namespace qwen2_tied_cpu
