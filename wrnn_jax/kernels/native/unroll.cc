// The unroll of h_{t+1} = σ(u ⋆ h_t + V x_t + b), y_t = W h_{t+1} + b_W, and its pull-back, for a CPU.
//
// Letters as in wrnn_jax/typing.py; besides, S is the steps of a segment, p = K//2, and F the outputs of a step.
//
// * A vector register holds one neuron of as many sequences as it has lanes: a tile of the batch is taken through all
//   steps by itself, and its states stay in the caches. Lanes to spare repeat the last sequence, with cotangents of 0:
//   no number comes up in them that does not come up elsewhere.
// * The p neurons of either end of a ring stand once more beyond the other end: a window never wraps.
// * Sums are kept in registers, for a block of channels and neurons (or of two other axes) at once, so that each
//   number loaded is used several times.
// * Only every S-th state is stored. The pull-back makes the states of a segment again, then goes through it backwards.
//
// One thread: XLA calls this on every device's share of the batch.

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <new>
#include <string>
#include <type_traits>
#include <utility>

#include "xla/ffi/api/ffi.h"

namespace {

namespace ffi = xla::ffi;
using std::int64_t;

// 32 vector registers, as AVX-512 and NEON have, or 16.
#if defined(__AVX512F__)
constexpr int kLanes = 16;
constexpr bool kManyRegisters = true;
#elif defined(__AVX__)
constexpr int kLanes = 8;
constexpr bool kManyRegisters = false;
#else
constexpr int kLanes = 4;
constexpr bool kManyRegisters = true;  // NEON
#endif
typedef float lanes __attribute__((vector_size(4 * kLanes)));

// Sizes of blocks: as many sums as leave registers for what is added to them.
constexpr int kNeurons = kManyRegisters ? 4 : 3;   // times ...
constexpr int kChannels = kManyRegisters ? 6 : 3;  // ... this many
constexpr int kDeltas = kManyRegisters ? 4 : 3;    // times ...
constexpr int kWindows = kManyRegisters ? 6 : 3;   // ... this many
constexpr int kSums = kManyRegisters ? 12 : 6;

// Sums in arrays are kept in registers only if the loops over them are gone.
#if defined(__clang__)
#define UNROLLED _Pragma("unroll")
#else
#define UNROLLED _Pragma("GCC unroll 16")
#endif

// --- activations, as in wrnn_jax/activations.py ---

struct Relu {
  static lanes apply(lanes z) { return z <= 0.0f ? lanes{} : z; }  // keeps NaN
  static lanes pull_back(lanes h, lanes dh) { return h > 0.0f ? dh : lanes{}; }
};

struct Tanh {
  // A rational function, exact to a few units in the last place (the coefficients are those of Eigen). A call, for
  // copies of it in every block would be most of the time to compile all this.
  [[gnu::noinline]] static lanes apply(lanes z) {
    constexpr float limit = 7.90531110763549805f;
    lanes x = z > limit ? lanes{} + limit : z < -limit ? lanes{} - limit : z;
    lanes s = x * x;
    lanes p = s * -2.76076847742355e-16f + 2.00018790482477e-13f;
    p = s * p - 8.60467152213735e-11f;
    p = s * p + 5.12229709037114e-08f;
    p = s * p + 1.48572235717979e-05f;
    p = s * p + 6.37261928875436e-04f;
    p = s * p + 4.89352455891786e-03f;
    lanes q = s * 1.19825839466702e-06f + 1.18534705686654e-04f;
    q = s * q + 2.26843463243900e-03f;
    q = s * q + 4.89352518554385e-03f;
    return x * p / q;
  }
  static lanes pull_back(lanes h, lanes dh) { return dh * (1.0f - h * h); }
};

struct Identity {
  static lanes apply(lanes z) { return z; }
  static lanes pull_back(lanes, lanes dh) { return dh; }
};

enum Activation : int64_t { kRelu, kTanh, kIdentity, kActivations };

// What becomes of the sums of a step: z -> σ(z), or, with the states h, ∂L/∂h -> ∂L/∂z at the same place. Chosen where
// the sums are done, not a parameter of the templates: each of them is compiled once.
struct Finish {
  Activation activation;
  const lanes* h = nullptr;

  // body(the function of (sum, place))
  template <class Body>
  void choose(Body body) const {
    switch (activation) {
      case kRelu: return with<Relu>(body);
      case kTanh: return with<Tanh>(body);
      default: return with<Identity>(body);
    }
  }

 private:
  template <class Sigma, class Body>
  void with(Body body) const {
    if (h) body([h = h](lanes dh, int64_t place) { return Sigma::pull_back(h[place], dh); });
    else body([](lanes z, int64_t) { return Sigma::apply(z); });
  }
};

// --- memory ---

// Zeros; T is float or lanes.
template <class T>
struct Buffer {
  explicit Buffer(int64_t size)
      : data(static_cast<T*>(::operator new(sizeof(T) * std::max<int64_t>(size, 1), std::align_val_t(64)))) {
    std::memset(static_cast<void*>(data), 0, sizeof(T) * size);
  }
  Buffer(Buffer&& other) : data(std::exchange(other.data, nullptr)) {}
  ~Buffer() { ::operator delete(data, std::align_val_t(64)); }
  operator T*() const { return data; }
  T* data;
};

// 0 … total as the fewest pieces of at most ``most``, as equal as can be.
struct Pieces {
  Pieces(int64_t total, int64_t most)
      : total(total),
        count((total + most - 1) / most),
        least(count ? total / count : 0),
        larger(total - least * count) {}
  int64_t begin(int64_t piece) const { return piece * least + std::min(piece, larger); }
  int size(int64_t piece) const { return least + (piece < larger); }
  int64_t total, count, least, larger;
};

// f(integral_constant<size>), for 1 ≤ size ≤ most.
template <int most, class F>
inline void with_constant(int size, F f) {
  if constexpr (most > 1) {
    if (size < most) return with_constant<most - 1>(size, f);
  }
  f(std::integral_constant<int, most>{});
}

// How a state of a tile lies: (C, stride) vectors, neuron i of channel c at c · stride + p + i.
struct Ring {
  Ring(int64_t channels, int64_t neurons, int64_t taps)
      : channels(channels), neurons(neurons), taps(taps), halo(taps / 2) {
    stride = (neurons + 2 * halo) | 1;        // odd: else the channels could share few sets of a cache, ...
    size = 4 * ((channels * stride + 3) / 4 | 1);  // ... and so could the states of a segment
  }
  int64_t row(int64_t channel) const { return channel * stride + halo; }

  // A step is done in columns of so many neurons; the last one overlaps the one before.
  int64_t column_width() const { return neurons >= kNeurons ? kNeurons : 1; }
  int64_t columns() const { return (neurons + column_width() - 1) / column_width(); }
  int64_t column(int64_t index) const { return std::min(index * column_width(), neurons - column_width()); }

  void wrap(lanes* state) const {
    for (int64_t c = 0; c < channels; ++c) {
      lanes* row = state + this->row(c);
      for (int64_t k = 0; k < halo; ++k) {
        row[k - halo] = row[neurons - halo + k];
        row[neurons + k] = row[k];
      }
    }
  }

  int64_t channels, neurons, taps, halo, stride, size;
};

// The sequences of a tile.
struct Members {
  int64_t first, count;

  // (B, width), of which ``length`` columns -> (length, lanes). Lanes to spare: the last sequence, or 0.
  void gather(const float* from, int64_t width, int64_t length, bool repeat, lanes* to) const {
    float* out = reinterpret_cast<float*>(to);
    for (int64_t lane = 0; lane < kLanes; ++lane) {
      const float* row = from + (first + std::min(lane, count - 1)) * width;
      bool real = repeat || lane < count;
      for (int64_t i = 0; i < length; ++i) out[i * kLanes + lane] = real ? row[i] : 0.0f;
    }
  }

  void scatter(const lanes* from, int64_t width, int64_t length, float* to) const {
    const float* in = reinterpret_cast<const float*>(from);
    for (int64_t lane = 0; lane < count; ++lane) {
      float* row = to + (first + lane) * width;
      for (int64_t i = 0; i < length; ++i) row[i] = in[i * kLanes + lane];
    }
  }

  void gather_state(const Ring& ring, const float* from, bool repeat, lanes* to) const {
    for (int64_t c = 0; c < ring.channels; ++c)
      gather(from + c * ring.neurons, ring.channels * ring.neurons, ring.neurons, repeat, to + ring.row(c));
    ring.wrap(to);
  }

  void scatter_state(const Ring& ring, const lanes* from, float* to) const {
    for (int64_t c = 0; c < ring.channels; ++c)
      scatter(from + ring.row(c), ring.channels * ring.neurons, ring.neurons, to + c * ring.neurons);
  }
};

inline float sum_lanes(lanes value) {
  float sum = 0.0f;
  for (int lane = 0; lane < kLanes; ++lane) sum += value[lane];
  return sum;
}

// --- the step, which is the adjoint's too ---

// A kernel (C, C, K) as the steps read it: a piece of the output channels after another, each (C, K, channels of it).
Buffer<float> pack_kernel(const Ring& ring, const float* kernel, bool adjoint) {
  int64_t C = ring.channels, K = ring.taps;
  Buffer<float> packed(C * C * K);
  float* next = packed;
  Pieces pieces(C, kChannels);
  for (int64_t piece = 0; piece < pieces.count; ++piece)
    for (int64_t j = 0; j < C; ++j)
      for (int64_t k = 0; k < K; ++k)
        for (int64_t o = pieces.begin(piece); o < pieces.begin(piece + 1); ++o)
          // Rᵀ is a correlation too, with the taps reversed and the channels exchanged.
          *next++ = adjoint ? kernel[(j * C + o) * K + K - 1 - k] : kernel[(o * C + j) * K + k];
  return packed;
}

// A matrix (C, N, size) as the steps read it, from end to end: for each column, for each piece of the channels,
// (size, neurons of the column, channels of the piece). entry(c, i, d) is what stands in it.
template <class Entry>
Buffer<float> pack_matrix(const Ring& ring, int64_t size, Entry entry) {
  Buffer<float> packed(ring.columns() * ring.column_width() * ring.channels * size);
  float* next = packed;
  Pieces pieces(ring.channels, kChannels);
  for (int64_t column = 0; column < ring.columns(); ++column)
    for (int64_t piece = 0; piece < pieces.count; ++piece)
      for (int64_t d = 0; d < size; ++d)
        for (int64_t m = 0; m < ring.column_width(); ++m)
          for (int64_t c = pieces.begin(piece); c < pieces.begin(piece + 1); ++c)
            *next++ = entry(c, ring.column(column) + m, d);
  return packed;
}

// z = u ⋆ from + P v + seed. Without ``channels`` there is no first summand, without ``seed`` no last one.
struct Step {
  const Ring& ring;
  const float* kernel;  // u, packed
  const float* matrix;  // P, packed
  int64_t size;         // of v
  int64_t channels;     // of ``from``

  // to = finish(z, place), for all neurons
  void operator()(const lanes* from, const lanes* v, const lanes* seed, lanes* to, Finish finish) const {
    if (ring.column_width() > 1) columns<kNeurons>(from, v, seed, to, finish);
    else columns<1>(from, v, seed, to, finish);
    ring.wrap(to);
  }

 private:
  template <int M>
  void columns(const lanes* from, const lanes* v, const lanes* seed, lanes* to, Finish finish) const {
    const Pieces pieces(ring.channels, kChannels);
    const float* p = matrix;
    for (int64_t column = 0; column < ring.columns(); ++column)
      for (int64_t piece = 0; piece < pieces.count; p += pieces.size(piece) * M * size, ++piece)
        with_constant<kChannels>(pieces.size(piece), [&](auto width) {
          block<width.value, M>(pieces.begin(piece), ring.column(column), from, p, v, seed, to, finish);
        });
  }

  template <int O, int M>
  [[gnu::noinline]] void block(int64_t channel, int64_t i, const lanes* from, const float* p, const lanes* v,
                               const lanes* seed, lanes* to, Finish finish) const {
    lanes sum[O][M] = {};
    int64_t place = ring.row(channel) + i;
    if (seed) {
      UNROLLED for (int o = 0; o < O; ++o)
        UNROLLED for (int m = 0; m < M; ++m) sum[o][m] = seed[place + o * ring.stride + m];
    }
    for (int64_t d = 0; d < size; ++d, p += M * O) {
      UNROLLED for (int m = 0; m < M; ++m)
        UNROLLED for (int o = 0; o < O; ++o) sum[o][m] += p[m * O + o] * v[d];
    }
    const float* u = kernel + channel * ring.channels * ring.taps;
    for (int64_t j = 0; j < channels; ++j) {
      const lanes* window = from + j * ring.stride + i;
      for (int64_t k = 0; k < ring.taps; ++k, ++window, u += O) {
        UNROLLED for (int o = 0; o < O; ++o)
          UNROLLED for (int m = 0; m < M; ++m) sum[o][m] += u[o] * window[m];
      }
    }
    finish.choose([&](auto finished) {
      UNROLLED for (int o = 0; o < O; ++o)
        UNROLLED for (int m = 0; m < M; ++m) {
          int64_t at = place + o * ring.stride + m;
          to[at] = finished(sum[o][m], at);
        }
    });
  }
};

// --- products ---

// y = M h + b for all neurons of a state, M (F, C·N).
struct Projection {
  // at(f, m): the entry of M
  template <class At>
  Projection(const Ring& ring, int64_t outputs, At at)
      : ring(ring), pieces(outputs, kSums), packed(outputs * ring.channels * ring.neurons) {
    float* next = packed;
    for (int64_t piece = 0; piece < pieces.count; ++piece)
      for (int64_t m = 0; m < ring.channels * ring.neurons; ++m)
        for (int64_t f = pieces.begin(piece); f < pieces.begin(piece + 1); ++f) *next++ = at(f, m);
  }

  void operator()(const lanes* state, const float* bias, lanes* y) const {
    for (int64_t piece = 0; piece < pieces.count; ++piece)
      with_constant<kSums>(pieces.size(piece), [&](auto size) {
        constexpr int F = size.value;
        int64_t first = pieces.begin(piece);
        lanes sum[F] = {};
        if (bias)
          UNROLLED for (int f = 0; f < F; ++f) sum[f] += bias[first + f];
        const float* matrix = packed + first * ring.channels * ring.neurons;
        for (int64_t c = 0; c < ring.channels; ++c) {
          const lanes* row = state + ring.row(c);
          for (int64_t i = 0; i < ring.neurons; ++i, matrix += F)
            UNROLLED for (int f = 0; f < F; ++f) sum[f] += matrix[f] * row[i];
        }
        UNROLLED for (int f = 0; f < F; ++f) y[first + f] = sum[f];
      });
  }

  const Ring& ring;
  Pieces pieces;
  Buffer<float> packed;
};

// sums (places of a state, width) += Σ_t states[t] ⊗ others[t], lane by lane, for ``count`` t.
void add_products(const Ring& ring, int64_t count, const lanes* states, const lanes* others, int64_t width,
                  lanes* sums) {
  Pieces pieces(width, kChannels);
  for (int64_t place = 0; place < ring.size; place += 4)
    for (int64_t piece = 0; piece < pieces.count; ++piece)
      with_constant<kChannels>(pieces.size(piece), [&](auto size) {
        constexpr int W = size.value;
        lanes* to = sums + place * width + pieces.begin(piece);
        lanes sum[4][W];
        UNROLLED for (int m = 0; m < 4; ++m)
          UNROLLED for (int w = 0; w < W; ++w) sum[m][w] = to[m * width + w];
        const lanes* state = states + place;
        const lanes* other = others + pieces.begin(piece);
        for (int64_t t = 0; t < count; ++t, state += ring.size, other += width)
          UNROLLED for (int m = 0; m < 4; ++m)
            UNROLLED for (int w = 0; w < W; ++w) sum[m][w] += state[m] * other[w];
        UNROLLED for (int m = 0; m < 4; ++m)
          UNROLLED for (int w = 0; w < W; ++w) to[m * width + w] = sum[m][w];
      });
}

// sums (C, C, K) += δ_{t+1} ⋆ h_t, lane by lane, for ``count`` t.
void add_kernel_gradient(const Ring& ring, int64_t count, const lanes* deltas, const lanes* states, lanes* sums) {
  Pieces outer(ring.channels, kDeltas), inner(ring.channels * ring.taps, kWindows);
  for (int64_t a = 0; a < outer.count; ++a)
    for (int64_t b = 0; b < inner.count; ++b)
      with_constant<kDeltas>(outer.size(a), [&](auto deltas_size) {
        with_constant<kWindows>(inner.size(b), [&](auto windows_size) {
          constexpr int O = deltas_size.value, Q = windows_size.value;
          lanes* to = sums + outer.begin(a) * inner.total + inner.begin(b);
          int64_t windows[Q];
          UNROLLED for (int q = 0; q < Q; ++q) {
            int64_t window = inner.begin(b) + q;
            windows[q] = window / ring.taps * ring.stride + window % ring.taps;
          }
          lanes sum[O][Q];
          UNROLLED for (int o = 0; o < O; ++o)
            UNROLLED for (int q = 0; q < Q; ++q) sum[o][q] = to[o * inner.total + q];
          for (int64_t t = 0; t < count; ++t) {
            const lanes* delta = deltas + t * ring.size + ring.row(outer.begin(a));
            const lanes* state = states + t * ring.size;
            for (int64_t i = 0; i < ring.neurons; ++i, ++delta, ++state)
              UNROLLED for (int q = 0; q < Q; ++q)
                UNROLLED for (int o = 0; o < O; ++o) sum[o][q] += delta[o * ring.stride] * state[windows[q]];
          }
          UNROLLED for (int o = 0; o < O; ++o)
            UNROLLED for (int q = 0; q < Q; ++q) to[o * inner.total + q] = sum[o][q];
        });
      });
}

// --- the unroll ---

struct Problem {
  Ring ring;
  Activation activation;
  int64_t batch, steps, inputs;
  int64_t width;     // of a step's outputs, 0 for none
  int64_t readouts;  // O: the outputs are W h + b_W; 0: they are the states
  int64_t segment;
  const float *kernel, *encoder, *bias, *readout, *readout_bias, *xs;

  int64_t segments() const { return (steps + segment - 1) / segment; }
  int64_t readout_width() const { return width ? readouts : 0; }

  Members members(int64_t tile) const {
    return {tile * kLanes, std::min<int64_t>(kLanes, batch - tile * kLanes)};
  }
  int64_t tiles() const { return (batch + kLanes - 1) / kLanes; }

  // V and b as one matrix: the last input is 1.
  Buffer<float> pack_drive() const {
    return pack_matrix(ring, inputs + 1, [&](int64_t c, int64_t i, int64_t d) {
      int64_t m = c * ring.neurons + i;
      return d < inputs ? encoder[m * inputs + d] : bias[m];
    });
  }

  // Wᵀ, for the adjoint.
  Buffer<float> pack_readout() const {
    return pack_matrix(ring, readout_width(), [&](int64_t c, int64_t i, int64_t f) {
      return readout[(f * ring.channels + c) * ring.neurons + i];
    });
  }

  void gather_inputs(const Members& members, int64_t t, lanes* x) const {
    members.gather(xs + t * batch * inputs, inputs, inputs, true, x);
    x[inputs] = lanes{} + 1.0f;
  }
};

void unroll(const Problem& problem, const float* carry, float* state, float* outputs, float* stored) {
  const Ring& ring = problem.ring;
  Buffer<float> kernel = pack_kernel(ring, problem.kernel, false), drive = problem.pack_drive();
  Step step{ring, kernel, drive, problem.inputs + 1, ring.channels};
  int64_t size = ring.channels * ring.neurons;
  Projection project(ring, problem.readout_width(),
                     [&](int64_t f, int64_t m) { return problem.readout[f * size + m]; });
  Buffer<lanes> one(ring.size), two(ring.size), x(problem.inputs + 1), y(problem.readout_width());
  lanes *h = one, *next = two;

  for (int64_t tile = 0; tile < problem.tiles(); ++tile) {
    Members members = problem.members(tile);
    members.gather_state(ring, carry, true, h);
    for (int64_t t = 0; t < problem.steps; ++t) {
      if (stored && t % problem.segment == 0) {
        std::memcpy(stored, h, ring.size * sizeof(lanes));
        stored += ring.size * kLanes;
      }
      problem.gather_inputs(members, t, x);
      step(h, x, nullptr, next, {problem.activation});
      std::swap(h, next);
      if (problem.readout_width()) {
        project(h, problem.readout_bias, y);
        members.scatter(y, problem.width, problem.width, outputs + t * problem.batch * problem.width);
      } else if (problem.width) {
        members.scatter_state(ring, h, outputs + t * problem.batch * problem.width);
      }
    }
    members.scatter_state(ring, h, state);
  }
}

// Where the gradients go; null for one that nobody asked for. Encoder and bias are asked for together.
struct Gradients {
  float *kernel, *encoder, *bias, *readout, *carry, *xs;
};

// With δ_t = ∂L/∂(pre-activation of h_t), from t = T down:
//
//   ∂L/∂u += δ_{t+1} ⋆ h_t,  ∂L/∂V += δ_{t+1} x_tᵀ,  ∂L/∂W += ∂L/∂y_{t−1} h_tᵀ,
//   ∂L/∂h_t = Rᵀ(δ_{t+1}) + Wᵀ ∂L/∂y_{t−1},  δ_t = σ'(h_t) ∂L/∂h_t
void pull_back(const Problem& problem, const float* stored, const float* state, const float* d_state,
               const float* d_outputs, const Gradients& gradients) {
  const Ring& ring = problem.ring;
  const int64_t D = problem.inputs, F = problem.readout_width(), S = problem.segment;
  const bool reads_states = problem.width && !F;
  Buffer<float> kernel = pack_kernel(ring, problem.kernel, false), drive = problem.pack_drive();
  Buffer<float> adjoint = pack_kernel(ring, problem.kernel, true), readout = problem.pack_readout();
  Step forth{ring, kernel, drive, D + 1, ring.channels};
  Step back{ring, adjoint, readout, F, ring.channels};
  Step first{ring, adjoint, readout, F, 0}, last{ring, adjoint, readout, 0, ring.channels};
  Projection to_inputs(ring, gradients.xs ? D : 0, [&](int64_t d, int64_t m) { return problem.encoder[m * D + d]; });

  Buffer<lanes> hs(S * ring.size), deltas((S + 1) * ring.size), seed(ring.size), dx(D);
  Buffer<lanes> x(S * (D + 1)), dy(S * F);
  Buffer<lanes> d_kernel(ring.channels * ring.channels * ring.taps);
  Buffer<lanes> d_drive(gradients.bias ? ring.size * (D + 1) : 0), d_readout(gradients.readout ? ring.size * F : 0);
  // Rings of few neurons have too little to sum in one step.
  const int64_t chunk = std::min(S, std::max<int64_t>(1, 64 / ring.neurons));

  for (int64_t tile = 0; tile < problem.tiles(); ++tile) {
    Members members = problem.members(tile);
    // What ∂L/∂y_{t−1} brings: as the linear readout's v, or as the seed.
    auto gather_cotangent = [&](int64_t t, lanes* v) {
      const float* from = d_outputs + (t - 1) * problem.batch * problem.width;
      if (F) members.gather(from, F, F, false, v);
      if (reads_states) members.gather_state(ring, from, false, seed);
    };

    const int64_t rest = problem.steps - (problem.segments() - 1) * S;  // length of the last segment
    members.gather_state(ring, state, true, hs);
    Buffer<lanes> d_last(ring.size);
    members.gather_state(ring, d_state, false, d_last);
    if (problem.width) gather_cotangent(problem.steps, dy);
    if (reads_states)
      for (int64_t place = 0; place < ring.size; ++place) d_last[place] += seed[place];
    first(nullptr, dy, d_last, deltas + rest * ring.size, {problem.activation, hs});
    if (gradients.readout) add_products(ring, 1, hs, dy, F, d_readout);

    for (int64_t s = problem.segments() - 1; s >= 0; --s) {
      const int64_t start = s * S, length = std::min(S, problem.steps - start);
      std::memcpy(hs, stored + (tile * problem.segments() + s) * ring.size * kLanes, ring.size * sizeof(lanes));
      for (int64_t k = 0; k < length; ++k) {
        problem.gather_inputs(members, start + k, x + k * (D + 1));
        if (k + 1 < length)
          forth(hs + k * ring.size, x + k * (D + 1), nullptr, hs + (k + 1) * ring.size, {problem.activation});
      }
      for (int64_t k = length - 1, pending = 1; k >= 0; --k, ++pending) {
        lanes *h = hs + k * ring.size, *next = deltas + (k + 1) * ring.size, *delta = deltas + k * ring.size;
        if (start + k == 0) {
          // h_0 is no activation, and nothing is read from it.
          std::memset(static_cast<void*>(dy.data), 0, F * sizeof(lanes));
          last(next, nullptr, nullptr, delta, {kIdentity});
        } else {
          if (problem.width) gather_cotangent(start + k, dy + k * F);
          back(next, dy + k * F, reads_states ? seed.data : nullptr, delta, {problem.activation, h});
        }
        if (gradients.kernel && (pending == chunk || k == 0)) {
          add_kernel_gradient(ring, pending, next, h, d_kernel);
          pending = 0;
        }
      }
      if (gradients.bias) add_products(ring, length, deltas + ring.size, x, D + 1, d_drive);
      if (gradients.readout) add_products(ring, length, hs, dy, F, d_readout);
      if (gradients.xs)
        for (int64_t k = 0; k < length; ++k) {
          to_inputs(deltas + (k + 1) * ring.size, nullptr, dx);
          members.scatter(dx, D, D, gradients.xs + (start + k) * problem.batch * D);
        }
      std::memcpy(deltas + S * ring.size, deltas, ring.size * sizeof(lanes));
    }
    members.scatter_state(ring, deltas, gradients.carry);
  }

  if (gradients.readout && !F)  // of no output
    std::fill_n(gradients.readout, problem.readouts * ring.channels * ring.neurons, 0.0f);
  if (gradients.kernel)
    for (int64_t i = 0; i < ring.channels * ring.channels * ring.taps; ++i)
      gradients.kernel[i] = sum_lanes(d_kernel[i]);
  for (int64_t c = 0, m = 0; c < ring.channels; ++c)
    for (int64_t i = 0; i < ring.neurons; ++i, ++m) {
      if (gradients.bias) {
        const lanes* sums = d_drive + (ring.row(c) + i) * (D + 1);
        for (int64_t d = 0; d < D; ++d) gradients.encoder[m * D + d] = sum_lanes(sums[d]);
        gradients.bias[m] = sum_lanes(sums[D]);
      }
      if (gradients.readout)
        for (int64_t f = 0; f < F; ++f)
          gradients.readout[f * ring.channels * ring.neurons + m] = sum_lanes(d_readout[(ring.row(c) + i) * F + f]);
    }
}

// --- the contract: dtype and sizes of every buffer, checked before any of it is read or written ---

using Array = ffi::AnyBuffer;

// What is wrong with a call, in words.
struct Misfit {
  std::string text;
};

std::string words(ffi::Span<const int64_t> sizes) {
  std::string text;
  for (int64_t size : sizes) text += (text.empty() ? "" : ", ") + std::to_string(size);
  return "(" + text + ")";
}

// The sizes of a buffer that others must fit. ``name`` says what it is and names its axes.
template <size_t rank>
std::array<int64_t, rank> sizes_of(const char* name, const Array& buffer) {
  auto sizes = buffer.dimensions();
  if (sizes.size() != rank) throw Misfit{std::string(name) + " has sizes " + words(sizes)};
  std::array<int64_t, rank> result;
  std::copy(sizes.begin(), sizes.end(), result.begin());
  return result;
}

float* data_of(const char* name, const Array& buffer, std::initializer_list<int64_t> sizes) {
  auto given = buffer.dimensions();
  if (!std::equal(given.begin(), given.end(), sizes.begin(), sizes.end()))
    throw Misfit{std::string(name) + " has sizes " + words(given) + ", must have " + words({sizes.begin(), sizes.size()})};
  if (buffer.element_type() != ffi::DataType::F32) throw Misfit{std::string(name) + " is not float32"};
  return static_cast<float*>(buffer.untyped_data());
}

// The same; null for one that is not asked for, whose sizes are all 0.
float* wanted(const char* name, const Array& buffer, std::initializer_list<int64_t> sizes) {
  auto given = buffer.dimensions();
  bool empty = given.size() == sizes.size() && std::all_of(given.begin(), given.end(), [](int64_t n) { return n == 0; });
  return empty ? nullptr : data_of(name, buffer, sizes);
}

// No size, offset or number of bytes that is computed here is above such a product.
void require_countable(std::initializer_list<int64_t> factors) {
  int64_t product = 1;
  for (int64_t factor : factors)
    if (__builtin_mul_overflow(product, std::max<int64_t>(factor, 1), &product))
      throw Misfit{"the sizes' product is above 2^63"};
}

struct Operands {
  const Array &kernel, &encoder, &bias, &readout, &readout_bias, &xs;
};

// ``outputs`` are those of all steps, or their cotangents.
Problem problem_of(const Operands& operands, const Array& outputs, int64_t activation, int64_t segment) {
  auto [C, N, D] = sizes_of<3>("encoder (C, N, D)", operands.encoder);
  auto K = sizes_of<3>("kernel (C, C, K)", operands.kernel)[2];
  auto [T, B, _] = sizes_of<3>("xs (T, B, D)", operands.xs);
  auto O = sizes_of<2>("readout (O, C N)", operands.readout)[0];
  auto F = sizes_of<3>("outputs (T, B, F)", outputs)[2];
  if (C < 1 || N < 1 || T < 1) throw Misfit{"C, N and T must be at least 1"};
  if (K % 2 == 0 || K > N) throw Misfit{"kernel (C, C, K) must have an odd K of at most N"};
  if (segment < 1 || segment > T) throw Misfit{"segment must be from 1 to T"};
  if (activation < 0 || activation >= kActivations) throw Misfit{"activation must be one of 0, 1, 2"};
  require_countable({16, C, N});
  require_countable({4 * kLanes, C, C, K});
  const Ring ring(C, N, K);
  const int64_t widest = std::max({ring.size, D, O});
  require_countable({8 * kLanes, ring.size, std::max(D, O)});
  require_countable({8 * kLanes, T, widest});
  require_countable({2 * kLanes, T, B, widest});
  if (F != 0 && F != (O ? O : C * N)) throw Misfit{"outputs (T, B, F) must have F = 0, O, or without a readout C N"};
  data_of("outputs (T, B, F)", outputs, {T, B, F});
  return {ring, static_cast<Activation>(activation), B, T, D, F, O, segment,
          data_of("kernel (C, C, K)", operands.kernel, {C, C, K}),
          data_of("encoder (C, N, D)", operands.encoder, {C, N, D}),
          data_of("bias (C, N)", operands.bias, {C, N}),
          data_of("readout (O, C N)", operands.readout, {O, C * N}),
          data_of("readout's bias (O)", operands.readout_bias, {O}),
          data_of("xs (T, B, D)", operands.xs, {T, B, D})};
}

template <class Body>
ffi::Error guarded(Body body) {
  try {
    body();
  } catch (const Misfit& misfit) {
    return ffi::Error::InvalidArgument("wrnn_jax.kernels.native: " + misfit.text);
  } catch (const std::bad_alloc&) {
    return ffi::Error(ffi::ErrorCode::kResourceExhausted, "no memory for the segments of wrnn_jax.kernels.native");
  }
  return ffi::Error::Success();
}

// --- what XLA calls: anybody may, with any buffers ---

ffi::Error forward(Array kernel, Array encoder, Array bias, Array readout, Array readout_bias, Array carry, Array xs,
                   ffi::Result<Array> state, ffi::Result<Array> outputs, ffi::Result<Array> stored,
                   int64_t activation, int64_t segment) {
  return guarded([&] {
    Problem problem =
        problem_of({kernel, encoder, bias, readout, readout_bias, xs}, *outputs, activation, segment);
    const int64_t B = problem.batch, C = problem.ring.channels, N = problem.ring.neurons;
    unroll(problem,
           data_of("carry (B, C, N)", carry, {B, C, N}),
           data_of("state (B, C, N)", *state, {B, C, N}),
           data_of("outputs (T, B, F)", *outputs, {problem.steps, B, problem.width}),
           wanted("stored", *stored, {problem.tiles(), problem.segments(), problem.ring.size * kLanes}));
  });
}

ffi::Error backward(Array kernel, Array encoder, Array bias, Array readout, Array readout_bias, Array xs, Array stored,
                    Array state, Array d_state, Array d_outputs, ffi::Result<Array> d_kernel,
                    ffi::Result<Array> d_encoder, ffi::Result<Array> d_bias, ffi::Result<Array> d_readout,
                    ffi::Result<Array> d_carry, ffi::Result<Array> d_xs, int64_t activation, int64_t segment) {
  return guarded([&] {
    Problem problem =
        problem_of({kernel, encoder, bias, readout, readout_bias, xs}, d_outputs, activation, segment);
    const int64_t B = problem.batch, T = problem.steps, D = problem.inputs, O = problem.readouts;
    const int64_t C = problem.ring.channels, N = problem.ring.neurons, K = problem.ring.taps;
    Gradients gradients;
    gradients.kernel = wanted("kernel's gradient (C, C, K)", *d_kernel, {C, C, K});
    gradients.bias = wanted("bias's gradient (C, N)", *d_bias, {C, N});
    gradients.encoder = gradients.bias ? data_of("encoder's gradient (C, N, D)", *d_encoder, {C, N, D})
                                       : data_of("encoder's gradient, without the bias's", *d_encoder, {0, 0, 0});
    gradients.readout = wanted("readout's gradient (O, C N)", *d_readout, {O, C * N});
    gradients.carry = data_of("carry's gradient (B, C, N)", *d_carry, {B, C, N});
    gradients.xs = wanted("xs' gradient (T, B, D)", *d_xs, {T, B, D});
    pull_back(problem,
              data_of("stored", stored, {problem.tiles(), problem.segments(), problem.ring.size * kLanes}),
              data_of("state (B, C, N)", state, {B, C, N}),
              data_of("state's cotangent (B, C, N)", d_state, {B, C, N}),
              data_of("outputs' cotangent (T, B, F)", d_outputs, {T, B, problem.width}),
              gradients);
  });
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(wrnn_forward, forward,
                              ffi::Ffi::Bind()
                                  .Arg<Array>().Arg<Array>().Arg<Array>().Arg<Array>().Arg<Array>()
                                  .Arg<Array>().Arg<Array>()
                                  .Ret<Array>().Ret<Array>().Ret<Array>()
                                  .Attr<int64_t>("activation").Attr<int64_t>("segment"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(wrnn_backward, backward,
                              ffi::Ffi::Bind()
                                  .Arg<Array>().Arg<Array>().Arg<Array>().Arg<Array>().Arg<Array>()
                                  .Arg<Array>().Arg<Array>().Arg<Array>().Arg<Array>().Arg<Array>()
                                  .Ret<Array>().Ret<Array>().Ret<Array>().Ret<Array>()
                                  .Ret<Array>().Ret<Array>()
                                  .Attr<int64_t>("activation").Attr<int64_t>("segment"));

// How many sequences a tile has, and floats a state of a tile.
extern "C" int64_t wrnn_lanes() { return kLanes; }
extern "C" int64_t wrnn_state_size(int64_t channels, int64_t neurons, int64_t taps) {
  return Ring(channels, neurons, taps).size * kLanes;
}
