// Writes the picture to stdout, as PNG.
#include <stdio.h>

#include "picture.h"

int main(void) {
    static unsigned char pixels[picture_bytes];
    int length = 0;
    draw(pixels);
    const unsigned char* png = encode(pixels, &length);
    return png && fwrite(png, length, 1, stdout) == 1 && fflush(stdout) == 0 ? 0 : 1;
}
