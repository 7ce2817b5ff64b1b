export const tissues = () => () => {};
