// Selective scan over groups of channels, forward and backward, float32. Symbols as in scan/base.py.
//
// Plain C interface, so that it builds in a second with the compiler alone. A vector holds WIDTH
// channels of one group; the states of a channel are separate vectors. Tensors are contiguous:
// u, delta, y (batch, groups, width, length), A (groups, width, state), B, C (batch, groups, state,
// length), D (groups, width) or null. `starts` keeps the states before every CHUNK steps for the
// backward pass, which recomputes the rest: (batch, groups, blocks, chunks, state, WIDTH).
//
// Must be built without -ffast-math: NaN and infinity have to spread, and `exponential` relies on a
// rounding constant that reassociation would remove.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>
#ifdef __AVX512F__
#include <immintrin.h>
#endif

namespace {

constexpr int WIDTH = 16;
constexpr int64_t CHUNK = 16;
typedef float Vec __attribute__((vector_size(4 * WIDTH)));
typedef int32_t Ints __attribute__((vector_size(4 * WIDTH)));
typedef std::vector<float> Buffer;

struct Sizes {
  int64_t batch, groups, width, states, length;
  int64_t blocks() const { return (width + WIDTH - 1) / WIDTH; }
  int64_t chunks() const { return (length + CHUNK - 1) / CHUNK; }
};

inline Vec load(const float* from) { Vec v; std::memcpy(&v, from, sizeof v); return v; }
inline void store(float* to, Vec v) { std::memcpy(to, &v, sizeof v); }

constexpr float ROUND = 12582912.f;  // 1.5 * 2^23: adding it leaves the nearest integer in the low bits

// p * 2^k for whole k in [-160, 130], where `shifted` is k + ROUND.
inline Vec scale(Vec p, Vec shifted) {
#ifdef __AVX512F__
  return (Vec)_mm512_scalef_ps((__m512)p, (__m512)(shifted - ROUND));
#else
  Ints exponent; std::memcpy(&exponent, &shifted, sizeof exponent);
  exponent -= 0x4B400000;  // the bits of ROUND
  // In two halves, because k may lie outside the exponent range of a float.
  const Ints half = exponent >> 1, first = (half + 127) << 23, second = (exponent - half + 127) << 23;
  Vec a, b; std::memcpy(&a, &first, sizeof a); std::memcpy(&b, &second, sizeof b);
  return p * a * b;
#endif
}

// Within 2 units in the last place of exp, over the whole range: subnormal, 0, infinity and NaN as
// IEEE says. Cephes expf (Moshier): x = k ln 2 + r, polynomial in r.
inline Vec exponential(Vec x) {
  x = x < -110.f ? Vec{} - 110.f : x;
  x = x > 90.f ? Vec{} + 90.f : x;
  Vec shifted = x * 1.44269504088896341f + ROUND, k = shifted - ROUND;
  Vec r = x - k * 0.693359375f;
  r = r + k * 2.12194440e-4f;
  Vec p = r * 1.9875691500e-4f + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.f;
  return scale(p, shifted);
}

inline float sum(Vec v) {
  typedef float Half __attribute__((vector_size(2 * WIDTH)));
  typedef float Quarter __attribute__((vector_size(WIDTH)));
  Half a, b; std::memcpy(&a, &v, sizeof a); std::memcpy(&b, (char*)&v + sizeof a, sizeof b);
  a += b;
  Quarter c, d; std::memcpy(&c, &a, sizeof c); std::memcpy(&d, (char*)&a + sizeof c, sizeof d);
  c += d;
  return (c[0] + c[1]) + (c[2] + c[3]);
}

// Rows of `stride` to a tile (steps, pitch); columns past `rows` are zero.
inline void transpose_in(const float* from, int64_t stride, int64_t rows, int64_t steps, int64_t pitch, float* tile) {
  if (rows < pitch) std::fill(tile, tile + steps * pitch, 0.f);
  for (int64_t i = 0; i < rows; i++)
    for (int64_t t = 0; t < steps; t++) tile[t * pitch + i] = from[i * stride + t];
}

inline void transpose_out(const float* tile, int64_t pitch, int64_t rows, int64_t steps, int64_t stride, float* to) {
  for (int64_t i = 0; i < rows; i++)
    for (int64_t t = 0; t < steps; t++) to[i * stride + t] = tile[t * pitch + i];
}

}  // namespace

extern "C" void selective_scan_forward(
    const float* u, const float* delta, const float* A, const float* B, const float* C, const float* D,
    float* y, float* starts, const int64_t* sizes, int threads) {
  const Sizes s = {sizes[0], sizes[1], sizes[2], sizes[3], sizes[4]};
  const int64_t N = s.states, L = s.length, blocks = s.blocks();
#pragma omp parallel for num_threads(threads) schedule(dynamic)
  for (int64_t task = 0; task < s.batch * s.groups * blocks; task++) {
    const int64_t sample_group = task / blocks, block = task % blocks;
    const int64_t channel = sample_group % s.groups * s.width + block * WIDTH;
    const int64_t lanes = std::min<int64_t>(WIDTH, s.width - block * WIDTH);
    const int64_t first = (sample_group * s.width + block * WIDTH) * L;
    Buffer state(N * WIDTH, 0.f), a(N * WIDTH), skip(WIDTH, 0.f);
    Buffer xs(CHUNK * WIDTH), ds(CHUNK * WIDTH), ys(CHUNK * WIDTH), bs(CHUNK * N), cs(CHUNK * N);
    transpose_in(A + channel * N, N, lanes, N, WIDTH, a.data());
    if (D) std::copy(D + channel, D + channel + lanes, skip.begin());
    for (int64_t l = 0; l < L; l += CHUNK) {
      const int64_t steps = std::min(CHUNK, L - l);
      if (starts) std::copy(state.begin(), state.end(), starts + (task * s.chunks() + l / CHUNK) * N * WIDTH);
      transpose_in(u + first + l, L, lanes, steps, WIDTH, xs.data());
      transpose_in(delta + first + l, L, lanes, steps, WIDTH, ds.data());
      transpose_in(B + sample_group * N * L + l, L, N, steps, N, bs.data());
      transpose_in(C + sample_group * N * L + l, L, N, steps, N, cs.data());
      for (int64_t t = 0; t < steps; t++) {
        const Vec d = load(&ds[t * WIDTH]), x = load(&xs[t * WIDTH]), dx = d * x;
        Vec out = Vec{};
        for (int64_t n = 0; n < N; n++) {
          const Vec h = exponential(d * load(&a[n * WIDTH])) * load(&state[n * WIDTH]) + dx * bs[t * N + n];
          store(&state[n * WIDTH], h);
          out += h * cs[t * N + n];
        }
        store(&ys[t * WIDTH], D ? out + load(skip.data()) * x : out);
      }
      transpose_out(ys.data(), WIDTH, lanes, steps, L, y + first + l);
    }
  }
}

// grad_A (batch, groups, width, state) and grad_D (batch, groups, width) are summed over the batch by
// the caller. Blocks of one group add to the same grad_B and grad_C, in order, so tasks are groups.
extern "C" void selective_scan_backward(
    const float* grad_y, const float* u, const float* delta, const float* A, const float* B, const float* C,
    const float* D, const float* starts, float* grad_u, float* grad_delta, float* grad_A, float* grad_B,
    float* grad_C, float* grad_D, const int64_t* sizes, int threads) {
  const Sizes s = {sizes[0], sizes[1], sizes[2], sizes[3], sizes[4]};
  const int64_t N = s.states, L = s.length, blocks = s.blocks();
#pragma omp parallel for num_threads(threads) schedule(dynamic)
  for (int64_t task = 0; task < s.batch * s.groups; task++) {
    Buffer a(N * WIDTH), skip(WIDTH), later(N * WIDTH), sum_a(N * WIDTH);
    Buffer states((CHUNK + 1) * N * WIDTH), decays(CHUNK * N * WIDTH);
    Buffer gs(CHUNK * WIDTH), xs(CHUNK * WIDTH), ds(CHUNK * WIDTH), gxs(CHUNK * WIDTH), gds(CHUNK * WIDTH);
    Buffer bs(CHUNK * N), cs(CHUNK * N), gbs(L * N, 0.f), gcs(L * N, 0.f);
    for (int64_t block = 0; block < blocks; block++) {
      const int64_t channel = task % s.groups * s.width + block * WIDTH;
      const int64_t lanes = std::min<int64_t>(WIDTH, s.width - block * WIDTH);
      const int64_t first = (task * s.width + block * WIDTH) * L;
      Ints real = {};  // lanes past the group's last channel may turn NaN and must not enter sums
      for (int64_t i = 0; i < lanes; i++) real[i] = -1;
      std::fill(skip.begin(), skip.end(), 0.f);
      if (D) std::copy(D + channel, D + channel + lanes, skip.begin());
      transpose_in(A + channel * N, N, lanes, N, WIDTH, a.data());
      std::fill(later.begin(), later.end(), 0.f);
      std::fill(sum_a.begin(), sum_a.end(), 0.f);
      Vec sum_d = Vec{};
      for (int64_t chunk = s.chunks() - 1; chunk >= 0; chunk--) {
        const int64_t l = chunk * CHUNK, steps = std::min(CHUNK, L - l);
        const float* start = starts + ((task * blocks + block) * s.chunks() + chunk) * N * WIDTH;
        std::copy(start, start + N * WIDTH, states.begin());
        transpose_in(grad_y + first + l, L, lanes, steps, WIDTH, gs.data());
        transpose_in(u + first + l, L, lanes, steps, WIDTH, xs.data());
        transpose_in(delta + first + l, L, lanes, steps, WIDTH, ds.data());
        transpose_in(B + task * N * L + l, L, N, steps, N, bs.data());
        transpose_in(C + task * N * L + l, L, N, steps, N, cs.data());
        for (int64_t t = 0; t < steps; t++) {
          const Vec d = load(&ds[t * WIDTH]), dx = d * load(&xs[t * WIDTH]);
          for (int64_t n = 0; n < N; n++) {
            const int64_t at = (t * N + n) * WIDTH;
            const Vec decay = exponential(d * load(&a[n * WIDTH]));
            store(&decays[at], decay);
            store(&states[at + N * WIDTH], decay * load(&states[at]) + dx * bs[t * N + n]);
          }
        }
        for (int64_t t = steps - 1; t >= 0; t--) {
          const Vec g = load(&gs[t * WIDTH]), x = load(&xs[t * WIDTH]), d = load(&ds[t * WIDTH]), dx = d * x;
          Vec grad_input = Vec{}, grad_step = Vec{};
          for (int64_t n = 0; n < N; n++) {
            const int64_t at = (t * N + n) * WIDTH;
            const Vec grad_state = load(&later[n * WIDTH]) + g * cs[t * N + n];
            const Vec to_c = g * load(&states[at + N * WIDTH]), to_b = grad_state * dx;
            gcs[(l + t) * N + n] += sum(real ? to_c : Vec{});
            gbs[(l + t) * N + n] += sum(real ? to_b : Vec{});
            grad_input += grad_state * bs[t * N + n];
            const Vec back = load(&decays[at]) * grad_state, through = back * load(&states[at]);
            grad_step += through * load(&a[n * WIDTH]);
            store(&sum_a[n * WIDTH], load(&sum_a[n * WIDTH]) + through * d);
            store(&later[n * WIDTH], back);
          }
          sum_d += g * x;
          store(&gxs[t * WIDTH], D ? grad_input * d + g * load(skip.data()) : grad_input * d);
          store(&gds[t * WIDTH], grad_input * x + grad_step);
        }
        transpose_out(gxs.data(), WIDTH, lanes, steps, L, grad_u + first + l);
        transpose_out(gds.data(), WIDTH, lanes, steps, L, grad_delta + first + l);
      }
      const int64_t row = task * s.width + block * WIDTH;
      transpose_out(sum_a.data(), WIDTH, lanes, N, N, grad_A + row * N);
      for (int64_t i = 0; i < lanes; i++) grad_D[row + i] = sum_d[i];
    }
    transpose_out(gbs.data(), N, N, L, L, grad_B + task * N * L);
    transpose_out(gcs.data(), N, N, L, L, grad_C + task * N * L);
  }
}
