#include "octet/kernels/cpu/cpu.h"

namespace octet {

void add_cpu_kernels(KernelTable& table) {
  add_avx512_vnni_kernels(table);
  add_avx512_kernels(table);
  add_avx2_kernels(table);
  add_any_cpu_kernels(table);
}

}  // namespace octet
