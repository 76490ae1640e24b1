// Any text as what a model wrote, cut as its first byte says: no crash, and with nothing to take apart nothing is lost.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "octet/server/output_splitter.h"

namespace {

using namespace octet;

std::string texts(OutputSplitter splitter, const std::string& text, size_t step) {
  std::string out;
  for (size_t i = 0; i < text.size(); i += step) out += splitter.push(text.substr(i, step)).text;
  return out + splitter.finish().text;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2 || size > 4096) return 0;
  const size_t step = 1 + data[0] % 16;
  const std::string text(reinterpret_cast<const char*>(data + 1), size - 1);
  for (const ToolStyle tools : {ToolStyle::kNone, ToolStyle::kHermes, ToolStyle::kMistral, ToolStyle::kLlama3}) {
    for (const ReasoningStyle reasoning : {ReasoningStyle::kNone, ReasoningStyle::kPossible, ReasoningStyle::kOpened}) {
      texts(OutputSplitter(tools, reasoning), text, step);
      texts(OutputSplitter(call_form(tools), reasoning), text, step);
    }
  }
  if (texts(OutputSplitter(ToolStyle::kNone, ReasoningStyle::kNone), text, step) != text) std::abort();
  return 0;
}
