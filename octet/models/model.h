#pragma once
#include <span>
namespace octet { struct ModelArch; std::span<const ModelArch* const> model_archs(); }
