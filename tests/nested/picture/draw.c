// Noise, in floating point.
#define STB_PERLIN_IMPLEMENTATION
#include <stb/stb_perlin.h>

#include "picture.h"

void draw(unsigned char* pixels) {
    for (int i = 0; i < picture_bytes; ++i) {
        const float x = i / 3 % side / 16.0f, y = i / 3 / side / 16.0f;
        pixels[i] = 128 + 100 * stb_perlin_fbm_noise3(x, y, i % 3, 2.0f, 0.5f, 4);
    }
}
