// UploaderService
