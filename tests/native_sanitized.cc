// The compiled unroll under sanitizers: calls that fit and calls that do not, every buffer a block of memory of its own.
//
// A call that fits must succeed and write a number into all of its results; one of which a single buffer or attribute
// is changed must be refused. Arguments: how many random calls, and the seed.

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "wrnn_jax/kernels/native/unroll.cc"

namespace {

std::mt19937_64 generator;

int64_t draw(int64_t low, int64_t high) { return std::uniform_int_distribution<int64_t>(low, high)(generator); }

// A buffer as XLA hands it over. Its memory ends where its last number does.
struct Owned {
  Owned(std::vector<int64_t> sizes, bool optional = false) : sizes(sizes), optional(optional) {}

  void fill(bool is_result) {
    int64_t count = std::count(sizes.begin(), sizes.end(), 0) ? 0 : 1;
    if (count)
      for (int64_t size : sizes) count *= size;
    data.reset(new float[count]);
    std::normal_distribution<float> normal(0.0f, 0.5f);
    for (int64_t i = 0; i < count; ++i)
      data[i] = is_result ? std::numeric_limits<float>::quiet_NaN() : normal(generator);
    raw = {XLA_FFI_Buffer_STRUCT_SIZE, nullptr, dtype, count ? data.get() : nullptr,
           static_cast<int64_t>(sizes.size()), sizes.data()};
    numbers = count;
  }

  bool is_written() const {
    for (int64_t i = 0; i < numbers; ++i)
      if (std::isnan(data[i])) return false;
    return true;
  }

  std::vector<int64_t> sizes;
  bool optional;
  XLA_FFI_DataType dtype = XLA_FFI_DataType_F32;
  std::shared_ptr<float[]> data;
  XLA_FFI_Buffer raw;
  int64_t numbers;
};

struct Call {
  bool forward;
  std::vector<Owned> operands, results;
  int64_t activation, segment, steps;

  ffi::Error operator()() {
    for (Owned& operand : operands) operand.fill(false);
    for (Owned& result : results) result.fill(true);
    auto o = [&](int i) { return ffi::AnyBuffer(&operands[i].raw); };
    auto r = [&](int i) { return ffi::Result<ffi::AnyBuffer>(ffi::AnyBuffer(&results[i].raw)); };
    if (forward)
      return ::forward(o(0), o(1), o(2), o(3), o(4), o(5), o(6), r(0), r(1), r(2), activation, segment);
    return ::backward(o(0), o(1), o(2), o(3), o(4), o(5), o(6), o(7), o(8), o(9), r(0), r(1), r(2), r(3), r(4), r(5),
                      activation, segment);
  }
};

// Sizes that fit; now and then there is no sequence, no input, no readout, no output or no wish for a gradient.
Call fitting() {
  int64_t C = draw(1, 14), N = draw(1, 12), K = 2 * draw(0, (N - 1) / 2) + 1, D = draw(0, 20), T = draw(1, 9);
  int64_t B = draw(0, 2 * kLanes + 1), O = draw(0, 3) ? draw(1, 26) : 0, F = draw(0, 4) ? (O ? O : C * N) : 0;
  int64_t S = draw(1, T), tiles = (B + kLanes - 1) / kLanes, segments = (T + S - 1) / S;
  std::vector<int64_t> stored{tiles, segments, wrnn_state_size(C, N, K)}, none(3, 0);
  std::vector<Owned> layers{{{C, C, K}}, {{C, N, D}}, {{C, N}}, {{O, C * N}}, {{O}}};
  Call call{draw(0, 1) == 0, std::move(layers), {}, draw(0, kActivations - 1), S, T};
  auto operand = [&](std::vector<int64_t> sizes) { call.operands.emplace_back(sizes); };
  auto result = [&](std::vector<int64_t> sizes) { call.results.emplace_back(sizes); };
  auto wish = [&](std::vector<int64_t> sizes, bool is_wished) {
    call.results.emplace_back(is_wished ? sizes : std::vector<int64_t>(sizes.size(), 0), true);
  };
  if (call.forward) {
    operand({B, C, N}), operand({T, B, D});
    result({B, C, N}), result({T, B, F}), wish(stored, draw(0, 1));
    return call;
  }
  operand({T, B, D}), operand(stored), operand({B, C, N}), operand({B, C, N}), operand({T, B, F});
  bool encoder = draw(0, 3);
  wish({C, C, K}, draw(0, 3)), wish({C, N, D}, encoder), wish({C, N}, encoder), wish({O, C * N}, draw(0, 3));
  result({B, C, N}), wish({T, B, D}, draw(0, 1));
  return call;
}

// Change one thing; false if the call may fit all the same.
bool spoil(Call& call) {
  std::vector<Owned*> buffers;
  for (Owned& operand : call.operands) buffers.push_back(&operand);
  for (Owned& result : call.results) buffers.push_back(&result);
  int64_t which = draw(0, buffers.size() + 1);
  if (which == static_cast<int64_t>(buffers.size())) {
    call.activation = draw(0, 1) ? -draw(1, 9) : draw(kActivations, 9);
    return true;
  }
  if (which > static_cast<int64_t>(buffers.size())) {
    int64_t least = std::numeric_limits<int64_t>::min(), most = std::numeric_limits<int64_t>::max();
    int64_t choices[] = {0, -1, least, most, call.steps + 1};
    call.segment = choices[draw(0, 4)];
    return true;
  }
  std::vector<int64_t>& sizes = buffers[which]->sizes;
  std::vector<int64_t> before = sizes;
  size_t axis = draw(0, sizes.size() - 1), other = draw(0, sizes.size() - 1);
  switch (draw(0, 7)) {
    case 0: sizes[axis] += 1; break;
    case 1: sizes[axis] -= sizes[axis] > 0; break;
    case 2: sizes[axis] = 0; break;
    case 3: sizes[axis] *= 2; break;
    case 4: std::swap(sizes[axis], sizes[other]); break;
    case 5: draw(0, 1) ? sizes.push_back(draw(0, 2)) : sizes.pop_back(); return true;
    case 6: buffers[which]->dtype = draw(0, 1) ? XLA_FFI_DataType_S32 : XLA_FFI_DataType_F16; break;
    case 7:  // of no numbers, and of more than can be counted
      sizes[axis] = int64_t{1} << draw(31, 62);
      sizes[(axis + 1) % sizes.size()] = 0;
      if (sizes.size() == 1) return false;
      break;
  }
  bool is_changed = sizes != before || buffers[which]->dtype != XLA_FFI_DataType_F32;
  bool is_unwished = buffers[which]->optional && std::all_of(sizes.begin(), sizes.end(), [](auto size) { return !size; });
  // Outputs of no width are no outputs.
  bool is_narrow = before.size() == 3 && sizes[0] == before[0] && sizes[1] == before[1] && !sizes[2];
  return is_changed && !is_unwished && !is_narrow;
}

void fail(const char* text, const std::string& more = "") {
  std::printf("%s %s\n", text, more.c_str());
  std::exit(1);
}

}  // namespace

int main(int, char** arguments) {
  int64_t calls = std::atoll(arguments[1]), refused = 0;
  generator.seed(std::atoll(arguments[2]));
  for (int64_t i = 0; i < calls; ++i) {
    Call call = fitting();
    if (i % 4) {
      if (!spoil(call)) continue;
      if (call().success()) fail("taken, but it does not fit");
      ++refused;
    } else {
      ffi::Error error = call();
      if (!error.success()) fail("refused, but it fits:", error.message());
      for (const Owned& result : call.results)
        if (!result.is_written()) fail("a result is not written");
    }
  }
  // No sequence, but steps without end: nothing to do, or too many to count.
  for (int64_t T : {int64_t{1} << 40, int64_t{1} << 62}) {
    Call call = fitting();
    while (!call.forward) call = fitting();
    for (auto* sizes : {&call.operands[6].sizes, &call.results[1].sizes}) *sizes = {T, 0, (*sizes)[2]};
    for (auto* sizes : {&call.operands[5].sizes, &call.results[0].sizes}) (*sizes)[0] = 0;
    call.results[2].sizes = {0, 0, 0};
    if (call().success() != (T < int64_t{1} << 50)) fail("steps without end");
  }
  std::printf("%lld calls, of which %lld were refused\n", static_cast<long long>(calls), static_cast<long long>(refused));
}
