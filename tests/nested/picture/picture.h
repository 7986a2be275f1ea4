// What the parts of the program give each other: a picture of `side` x `side` pixels, 3 bytes each.
enum { side = 32, picture_bytes = side * side * 3 };

void draw(unsigned char* pixels);
unsigned char* encode(const unsigned char* pixels, int* length);
