# Finds pybind11: where CMake looks, else in the Python that the module is for.
find_package(pybind11 CONFIG QUIET)
if(NOT pybind11_FOUND)
  execute_process(
    COMMAND "${Python_EXECUTABLE}" -m pybind11 --cmakedir
    OUTPUT_VARIABLE PYBIND11_OF_PYTHON OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  find_package(pybind11 CONFIG QUIET PATHS "${PYBIND11_OF_PYTHON}" NO_DEFAULT_PATH)
endif()
if(NOT pybind11_FOUND)
  message(FATAL_ERROR
    "pybind11 is missing, which the Python module needs: ${Python_EXECUTABLE} -m pip install "
    "pybind11. The C library alone does without: -DQWEN3_PYTHON=OFF")
endif()
