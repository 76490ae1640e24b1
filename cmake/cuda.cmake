# The CUDA toolkit, found only with OCTET_CUDA. Nothing of it is needed to run on a machine without a GPU: the runtime
# is linked statically and looks for the driver when it is first called.

# The GPU generations that octet has kernels for: "a" targets have wgmma, "-real" keeps PTX out.
set(OCTET_CUDA_ARCHITECTURES 90a-real)

if(OCTET_CUDA)
  set(CMAKE_CUDA_ARCHITECTURES ${OCTET_CUDA_ARCHITECTURES})
  enable_language(CUDA)
  if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)  # CMake 3.25 does not know that nvcc has C++20
    set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
    set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION -std=c++20)
  endif()
  find_package(CUDAToolkit 13.0 REQUIRED)
  set(OCTET_CUDA_RUNTIME CUDA::cudart_static)
endif()

function(octet_cuda_flags target)
  if(NOT OCTET_CUDA)
    return()
  endif()
  # A kernel that spills registers does not compile. -lineinfo: profilers and sanitizers name source lines.
  # FMT_*: nvcc's front end cannot evaluate fmt's compile-time checks of formats.
  set(flags -lineinfo -DFMT_USE_CONSTEXPR=1 -DFMT_CONSTEVAL= --expt-relaxed-constexpr -Xptxas=--warn-on-spills,--warning-as-error -Werror=all-warnings
            -Xcompiler=-Wall,-Wextra,-Wno-missing-field-initializers,-ffp-contract=off)
  target_compile_options(${target} INTERFACE "$<$<COMPILE_LANGUAGE:CUDA>:${flags}>")
endfunction()
