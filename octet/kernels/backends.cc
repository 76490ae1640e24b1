// The one file that names the backends.
#include "octet/kernels/backends.h"

#include "octet/base/error.h"
#include "octet/kernels/cpu/cpu.h"
#include "octet/kernels/gpu.h"
#include "octet/kernels/reference/reference.h"

namespace octet {
namespace {

KernelTable make_reference_table() {
  KernelTable table;
  add_reference_kernels(table);
  return table;
}

KernelTable make_cpu_table() {
  KernelTable table;
  add_cpu_kernels(table);
  add_reference_kernels(table);
  return table;
}

// GPU memory is out of the reference kernels' reach: what no row takes is an error that names all rows.
KernelTable make_cuda_table() {
  KernelTable table;
  add_hopper_kernels(table);
  add_cuda_kernels(table);
  return table;
}

}  // namespace

const KernelTable& kernel_table(Device device, KernelSelection selection) {
  static const KernelTable reference = make_reference_table();
  static const KernelTable cpu = make_cpu_table();
  static const KernelTable cuda = make_cuda_table();
  if (selection == KernelSelection::kReferenceOnly) return reference;
  return device.kind == DeviceKind::kCuda ? cuda : cpu;
}

}  // namespace octet
