#include "python/bind_async.h"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/variant.h>
#include <nanobind/stl/vector.h>

#include "python/output_mailbox.h"
#include "python/prompt_value.h"

namespace nb = nanobind;

namespace octet {
namespace {

std::string submit(Llm& llm, const std::shared_ptr<OutputMailbox>& mailbox, uint64_t key, PromptValue prompt,
                   const SamplingParams& params, int32_t priority) {
  return llm.submit(to_prompt(std::move(prompt)), params, mailbox->sink(key),
                    {.priority = priority, .cache_salt = {}, .pooling = {}});
}

}  // namespace

void bind_async(nb::module_& m) {
  const nb::call_guard<nb::gil_scoped_release> without_gil;
  nb::class_<OutputMailbox>(m, "OutputMailbox")
      .def(nb::new_([] { return std::make_shared<OutputMailbox>(); }))
      .def("fileno", &OutputMailbox::fd)
      .def("take", &OutputMailbox::take);
  m.def("submit", &submit, nb::arg("llm"), nb::arg("mailbox"), nb::arg("key"), nb::arg("prompt"), nb::arg("params"),
        nb::arg("priority"), without_gil);
  m.def(
      "abort", [](Llm& llm, const std::string& id) { llm.abort(id); }, nb::arg("llm"), nb::arg("id"), without_gil);
  m.def(
      "fault", [](Llm& llm) { return llm.engine().fault(); }, nb::arg("llm"), without_gil);
}

}  // namespace octet
