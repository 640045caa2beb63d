// uploader
