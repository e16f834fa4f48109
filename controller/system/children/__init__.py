"""Children with requests and answers over pipes, such as the decryption and the render worker."""
