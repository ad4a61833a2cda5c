# What a module was compiled for, in a file beside it: the CPU features that the compiler was allowed
# to use, under their names in /proc/cpuinfo. qwen3_runtime compares them before it loads the module.
set(QWEN3_CPU_FEATURES
  __AVX__=avx __AVX2__=avx2 __AVX512BF16__=avx512_bf16 __AVX512BITALG__=avx512_bitalg
  __AVX512BW__=avx512bw __AVX512CD__=avx512cd __AVX512DQ__=avx512dq __AVX512F__=avx512f
  __AVX512FP16__=avx512_fp16 __AVX512IFMA__=avx512ifma __AVX512VBMI__=avx512vbmi
  __AVX512VBMI2__=avx512_vbmi2 __AVX512VL__=avx512vl __AVX512VNNI__=avx512_vnni
  __AVX512VPOPCNTDQ__=avx512_vpopcntdq __AVXVNNI__=avx_vnni __AMX_BF16__=amx_bf16
  __AMX_INT8__=amx_int8 __AMX_TILE__=amx_tile __BMI__=bmi1 __BMI2__=bmi2 __F16C__=f16c __FMA__=fma
  __GFNI__=gfni __LZCNT__=abm __MOVBE__=movbe __POPCNT__=popcnt __SSE4_1__=sse4_1 __SSE4_2__=sse4_2
  __SSSE3__=ssse3 __VAES__=vaes
  __ARM_FEATURE_BF16=bf16 __ARM_FEATURE_DOTPROD=asimddp
  __ARM_FEATURE_FP16_VECTOR_ARITHMETIC=asimdhp __ARM_FEATURE_MATMUL_INT8=i8mm __ARM_FEATURE_SVE=sve)

# Args: the manifest that the module belongs to, compiler flags as a list, the file to write.
function(qwen3_write_build_record manifest flags record)
  separate_arguments(more UNIX_COMMAND "${CMAKE_CXX_FLAGS}")
  execute_process(
    COMMAND "${CMAKE_CXX_COMPILER}" ${more} ${flags} -x c++ -dM -E /dev/null
    OUTPUT_VARIABLE macros RESULT_VARIABLE status)
  if(NOT status EQUAL 0)
    message(FATAL_ERROR "${CMAKE_CXX_COMPILER} does not take the flags '${more};${flags}'")
  endif()
  set(features)
  foreach(feature IN LISTS QWEN3_CPU_FEATURES)
    string(REPLACE "=" ";" parts "${feature}")
    list(GET parts 0 macro)
    list(GET parts 1 name)
    if(macros MATCHES "#define ${macro} ")
      list(APPEND features "\"${name}\"")
    endif()
  endforeach()
  string(REPLACE ";" ", " features "${features}")
  string(REPLACE ";" " " name "${flags}")
  file(SHA256 "${manifest}" digest)
  file(WRITE "${record}" "{
  \"manifest_sha256\": \"${digest}\",
  \"isa\": {\"name\": \"${name}\", \"features\": [${features}]},
  \"compiler\": \"${CMAKE_CXX_COMPILER_ID} ${CMAKE_CXX_COMPILER_VERSION}\"
}
")
endfunction()
