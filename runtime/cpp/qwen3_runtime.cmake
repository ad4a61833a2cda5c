# Makes the target qwen3_runtime of a folder in which the shared runtime is already compiled.
# Expects QWEN3_RUNTIME_DIR, QWEN3_CPP_DIR, QWEN3_INFINICORE_HEADERS, QWEN3_INFINICORE_EMBEDDED
# and QWEN3_INFINI_LIBRARIES, the libraries of InfiniCore.
find_package(Threads REQUIRED)
add_library(qwen3_runtime INTERFACE)
target_include_directories(qwen3_runtime INTERFACE ${QWEN3_CPP_DIR})
target_include_directories(qwen3_runtime SYSTEM INTERFACE ${QWEN3_INFINICORE_HEADERS})
if(QWEN3_INFINICORE_EMBEDDED)
  target_compile_definitions(qwen3_runtime INTERFACE INFINICORE_HIDDEN)
endif()
target_link_libraries(qwen3_runtime INTERFACE
  ${QWEN3_RUNTIME_DIR}/libqwen3_engine_base.a ${QWEN3_INFINI_LIBRARIES} Threads::Threads)
